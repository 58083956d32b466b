"""The flags of the scores, of which most are those of SPR's recipe."""

from dataclasses import dataclass

from spr_plugin.settings import SHARE, Settings, one_of, setting


@dataclass(frozen=True)
class ScoresFlags(Settings):
    """What an answer is worth, and how it is repaired."""

    spr_clip: str | None = setting(
        None,
        "CLIP checkpoint of the semantic score; default: the host's --vision_tower, whose repository holds"
        " the text tower too",
        shapes="scores",
    )
    spr_detector: str | None = setting(
        None,
        "Grounding DINO or OWLv2 checkpoint whose boxes join the ground truth; default: annotations alone",
        shapes="scores",
    )
    spr_detector_threshold: float = setting(
        0.35,
        "a detector's box counts from this score on",
        "Grounding DINO's demo",
        within=SHARE,
        shapes="scores",
    )
    spr_no_detector: bool = setting(
        False,
        "ablation: --spr_detector is not asked, truth is the annotations and predictions are the written"
        " boxes",
        shapes="scores",
    )
    spr_scorer: str = setting("spr", "scorer of the candidates, by name", shapes="scores")
    spr_lambda: float = setting(
        0.8,
        "weight of the semantic score: S = lambda S_sem + (1 - lambda) S_loc",
        "paper",
        within=SHARE,
        shapes="scores",
    )
    spr_no_local: bool = setting(False, "ablation: S_sem is the crop's similarity alone", shapes="scores")
    spr_repair: str = setting(
        "item",
        "what goes with a box that has no match: its coordinates, or the item; ablation: none (as answered)",
        "paper: coordinates; item: study",
        shapes="scores",
    )
    spr_match: str = setting(
        "iou",
        "what makes boxes match in repair and S_loc: iou, or iou and name (nouns; CLIP where they differ)",
        "paper; study",
        within=one_of("iou", "name"),
        shapes="scores",
    )
    spr_match_threshold: float = setting(
        0.9, "cosine of two names from which on they agree, where nouns differ", within=SHARE, shapes="scores"
    )
    spr_count_duplicates: bool = setting(
        False, "a second box on one object counts in S_loc as an object that was missed", shapes="scores"
    )
    spr_reject_vague: bool = setting(
        True,
        "words without a box that can be read have S_loc 0 and may be rejected, never chosen",
        "study",
        shapes="scores",
    )
    spr_add_missed: bool = setting(
        True,
        "objects that a repaired answer misses are added in the words of the region's other answers, in the"
        " order in which the model names objects",
        "study",
        shapes="scores",
    )
    spr_min_kept: float = setting(
        0.8,
        "a repaired description that keeps less than this share of its boxes (item: names) is not chosen",
        "study",
        within=SHARE,
        shapes="scores",
    )
