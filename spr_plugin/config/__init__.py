"""The ``--spr_*`` flags: one frozen dataclass that joins the host's own in ``HfArgumentParser``.

    run queries candidates scores pairs dpo → all_flags → files → checks → SPRConfig

A flag stands with the stage that reads it, those that several read in ``shared``; a stage is given its own
alone, ``config.only(DPOFlags)``. "paper" as origin means the SPR paper states the value; "study"
that docs/reproduction.md supports it, "ours" that we chose it. Nothing heavy is imported here: the boot
module reads it at interpreter start.
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from spr_plugin.config.all_flags import KINDS, STAGES, AllFlags
from spr_plugin.config.checks import check
from spr_plugin.config.files import (
    beneath,
    dpo_settings,
    own_settings,
    preset_settings,
    recipe_settings,
    shaping,
)
from spr_plugin.settings import weighed

__all__ = ["KINDS", "STAGES", "SPRConfig", "dpo_settings", "own_settings", "shaping"]


@dataclass(frozen=True, init=False)
class SPRConfig(AllFlags):
    """Flags of the SPR stage. What is given stands; the files that it names set the rest, then the preset
    does, then the defaults. UserError for what makes no sense.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._settle(given.keys())

    def mines(self) -> bool:
        """Whether SPR's boxes come from the host's own data; another recipe says itself what it lacks."""
        return "spr" in self.recipes() and self.spr_annotations is None

    def _settle(self, given: Set[str]) -> None:
        self._set({name: kind.read(getattr(self, name), f"--{name}") for name, kind in KINDS.items()})
        if self.spr_only:
            self._set({"spr": True})
        KINDS["spr_preset"].check(self.spr_preset, "--spr_preset")
        KINDS["spr_recipe"].check(self.spr_recipe, "--spr_recipe")
        if "spr_learning_rate" in given:
            self._set({"spr_rate_ratio": 0.0})
        for layer in (dpo_settings(self)[0], recipe_settings(self)[0], preset_settings(self)):
            self._set(beneath(layer, given))
            given = given | layer.keys()
        KINDS["spr_pairing"].check(self.spr_pairing, "--spr_pairing")
        if "sft" in weighed(self.spr_pairing):  # the pairing names the loss, too
            self._set({"spr_loss_type": ["sft"], "spr_loss_weights": []})
        if self.spr:
            check(self)
