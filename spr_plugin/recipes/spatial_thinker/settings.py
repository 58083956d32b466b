"""The section `spatial_thinker` of ``--spr_recipe_config``."""

from dataclasses import dataclass

from spr_plugin.settings import SHARE, Range, one_of, setting

TASKS = ("relation", "size", "location", "distance", "count", "existence")


@dataclass(frozen=True)
class ThinkerSettings:
    """What is asked, and how an answer is paid."""

    annotations: str | None = setting(
        None, "file of scene graphs or rows; default: --spr_annotations, which beside spr holds its boxes"
    )
    tasks: list[str] = setting(list(TASKS), "kinds of questions", within=one_of(*TASKS))
    per_picture: int = setting(
        3,
        "questions about one picture",
        within=Range("must lie between 1 and 100", range(1, 101).__contains__),
    )
    scene: str = setting(
        "code_sum",
        "term S: code_sum (sum of (CIoU + 1) / 2 of the matched over the true objects, the authors' code) or"
        " text_mean (mean CIoU of the matched, the paper's text)",
        "paper",
        within=one_of("code_sum", "text_mean"),
    )
    count: str = setting(
        "true",
        "what the counts of C and the sum of S are divided by: true (the paper) or larger (of true and"
        " predicted, so that one box too many costs more than it can gain)",
        "paper",
        within=one_of("true", "larger"),
    )
    relation: float = setting(
        0.0, "share of S that is the Jaccard index of the triples; 0: words earn nothing (code)", within=SHARE
    )
    names: str = setting(
        "exact",
        "likeness of two names in the matching: exact, or clip (cosine by the model of --spr_clip)",
        within=one_of("exact", "clip"),
    )
    right_only: bool = setting(True, "only right answers are chosen")
