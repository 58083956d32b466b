"""The flags of the pairs."""

from dataclasses import dataclass

from spr_plugin.settings import NOT_NEGATIVE, Settings, setting


@dataclass(frozen=True)
class PairsFlags(Settings):
    """Which answers are chosen and rejected."""

    spr_pairing: str = setting(
        "best_worst",
        "best_worst; ablations: random (two answers drawn by chance) or sft (train on the chosen alone, no"
        " DPO)",
        "paper",
        shapes="pairs",
    )
    spr_min_gap: float = setting(
        0.0,
        "a region is skipped when S of chosen is not above that of rejected, or by less than this",
        within=NOT_NEGATIVE,
        shapes="pairs",
    )
