"""The flags of the first stage, the queries."""

from dataclasses import dataclass

from spr_plugin.config.shared import SeedFlags
from spr_plugin.settings import NOT_NEGATIVE, POSITIVE, SHARES, setting, weighed

MAX_PIXELS = 178_956_970  # where Pillow refuses by itself


@dataclass(frozen=True)
class QueriesFlags(SeedFlags):
    """The recipe, and where its pictures and boxes come from."""

    spr_recipe: list[str] = setting(
        ["spr"],
        "what is asked and what a good answer is: spr, spatial_ssrl, spatial_thinker, actial, or a plugin's,"
        " by name; several share --spr_regions alike, or as NAME=SHARE",
        within=SHARES,
        shapes="queries",
    )
    spr_recipe_config: str | None = setting(
        None,
        "YAML file with a section of settings a recipe; that of spr sets its flags (without spr_), over the"
        " command line",
        shapes="queries",
    )
    spr_pairs: str | None = setting(
        None,
        "JSON lines of preference pairs of your own, as `spr export --format trl` writes them: nothing is"
        " sampled or scored, DPO trains on these",
        shapes="queries",
    )
    spr_annotations: str | None = setting(
        None,
        "COCO-format JSON with object boxes (spatial_thinker: scene graphs, actial: poses); default: mined"
        " from the grounded conversations of --data_path",
        shapes="queries",
    )
    spr_image_folder: str | None = setting(
        None,
        "folder of the images that are asked about; default: the host's --image_folder",
        shapes="queries",
    )
    spr_allow_outside: bool = setting(
        False, "use pictures that `..`, an absolute name or a link lead to outside it"
    )
    spr_max_pixels: int = setting(
        MAX_PIXELS,
        "larger pictures are left out, by their headers; raises Pillow's own limit too",
        "Pillow",
        within=POSITIVE,
        shapes="queries",
    )
    spr_data_aspect: str | None = setting(
        None,
        "how the pictures of --data_path were seen by whoever wrote its boxes (pad, square …); default: the"
        " host's --image_aspect_ratio",
        shapes="queries",
    )
    spr_exclude: list[str] = setting(
        [],
        "files or folders that name pictures to leave out: RefCOCO's val and test lie in COCO's training set",
        shapes="queries",
    )
    spr_min_objects: int = setting(
        1, "pictures with fewer objects are left out", within=NOT_NEGATIVE, shapes="queries"
    )
    spr_min_area: float = setting(
        0.0, "objects of fewer square pixels are left out", within=NOT_NEGATIVE, shapes="queries"
    )
    spr_keep_crowd: bool = setting(
        False, "groups (iscrowd) and ignored objects of --spr_annotations count as objects", shapes="queries"
    )
    spr_regions: int = setting(
        10000, "number of queries", "paper: 10k images", within=POSITIVE, shapes="queries"
    )
    spr_regions_per_image: int = setting(1, "regions grown in one image", within=POSITIVE, shapes="queries")
    spr_more_than: int = setting(
        4,
        "a region grows until it holds more than this many objects",
        "paper",
        within=NOT_NEGATIVE,
        shapes="queries",
    )

    def recipes(self) -> dict[str, float]:
        """Names of the recipes, and their shares of the queries."""
        return weighed(self.spr_recipe)
