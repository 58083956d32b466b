"""All flags: one dataclass of the stages' own."""

from dataclasses import dataclass

from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.config.pairs import PairsFlags
from spr_plugin.config.queries import QueriesFlags
from spr_plugin.config.run import RunFlags
from spr_plugin.config.scores import ScoresFlags
from spr_plugin.settings import kinds_of

# Stages in their order. A flag shapes the records of one of them, and so of those behind it, or of none.
STAGES = ("queries", "candidates", "scores", "pairs", "dpo")


# A dataclass takes the fields of its last base first: they stand in the order of the stages.
@dataclass(frozen=True)
class AllFlags(DPOFlags, PairsFlags, ScoresFlags, CandidatesFlags, QueriesFlags, RunFlags):
    """The flags of all stages as they are given."""


KINDS = kinds_of(AllFlags)
