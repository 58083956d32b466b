"""The section ``spatial_ssrl`` of ``--spr_recipe_config``."""

from dataclasses import dataclass

from spr_plugin.settings import NOT_NEGATIVE, SHARE, Range, one_of, setting

OF_DEPTH = ("depth_order", "position")
TASKS = ("patch_order", "flipped_patch", "cropped_patch", *OF_DEPTH)
GRIDS = ("2x2", "1x3", "1x4", "3x1", "4x1")  # rows x columns
SOME_TASKS = Range(f"choose from {', '.join(TASKS)}", lambda names: set(names) <= set(TASKS))
CONSTANT = one_of("text", "code")  # where the paper's text and its code differ


@dataclass(frozen=True)
class Asking:
    """What is asked, and what an answer is worth."""

    tasks: list[str] = setting(
        [], "tasks, in turn; default: those of pixels, with `depth` all five", within=SOME_TASKS
    )
    depth: str | None = setting(None, "folder of the pictures' depths")
    disparity: bool = setting(False, "those files hold disparity, which is larger for what is nearer")
    min_change: float = setting(
        0.03, "a sample is refused whose patches differ by less, as a share of a pixel's range", within=SHARE
    )
    grids: list[str] = setting(
        list(GRIDS), "rows x columns of shuffled patches", "paper", within=one_of(*GRIDS)
    )
    white: float = setting(0.5, "share of 2x2 grids that have a white patch", "paper", within=SHARE)
    montage: bool = setting(
        False, "the pieces of a cropped patch lie on one picture even where several can be shown"
    )
    facings: str = setting(
        "text", "text: all alike; code: left, right and camera 30 % each", "paper", within=CONSTANT
    )
    distance: str = setting(
        "text",
        "from where on a region lies beside another; text: 150 pixels; code: an eighth of the smaller side",
        "paper",
        within=CONSTANT,
    )
    resample: int = setting(
        2, "a query whose answers are all right or all wrong is asked so many times more", within=NOT_NEGATIVE
    )
    partial: bool = setting(False, "an order earns the share of its places that are right")
