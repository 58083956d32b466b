"""The flags that several stages read."""

from dataclasses import dataclass

from spr_plugin.settings import FEW, NOT_NEGATIVE, POSITIVE, Settings, setting


@dataclass(frozen=True)
class SeedFlags(Settings):
    """What makes a run like another."""

    spr_seed: int = setting(0, "seed of regions and sampling", within=NOT_NEGATIVE, shapes="queries")


@dataclass(frozen=True)
class AnswerFlags(Settings):
    """How the model is asked, for candidates and in the looks at held-out queries."""

    spr_max_new_tokens: int = setting(256, "longest answer, in tokens", within=POSITIVE, shapes="candidates")
    spr_sample_batch: int = setting(8, "prompts answered in one batch", within=FEW, shapes="candidates")
