"""The flags of the pairs."""

from dataclasses import dataclass

from spr_plugin.settings import NOT_NEGATIVE, SHARES, Settings, setting


@dataclass(frozen=True)
class PairsFlags(Settings):
    """Which answers are chosen and rejected."""

    spr_pairing: list[str] = setting(
        ["best_worst"],
        "best_worst, repaired (an answer's own boxes, repaired over written), equal_length (best_worst among"
        " answers of one length) or shares of several as NAME=SHARE; ablations: random, or sft (train on the"
        " chosen alone, no DPO)",
        "paper",
        within=SHARES,
        shapes="pairs",
    )
    spr_min_gap: float = setting(
        0.0,
        "a region is skipped when S of chosen is not above that of rejected, or by less than this",
        within=NOT_NEGATIVE,
        shapes="pairs",
    )
