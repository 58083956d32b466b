"""Which recipe a run follows."""

from typing import Any

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.plugins import ask
from spr_plugin.recipes.base import Recipe
from spr_plugin.recipes.given import GivenPairs


def find_recipe(config: SPRConfig, box_format: BoxFormat | None) -> Recipe[Any]:
    """The recipe of ``--spr_recipe``, or of ``--spr_pairs``, for a model that writes boxes as `box_format`
    does, if that is known. UserError where nobody has it.
    """
    if config.spr_pairs:
        return GivenPairs(config.spr_pairs, box_format)
    recipe: Recipe[Any] | None = ask("spr_recipe", config=config, box_format=box_format)
    if recipe is None:
        ours = "spr, spatial_ssrl, spatial_thinker and actial"
        raise UserError(f"--spr_recipe {config.spr_recipe}: no plugin has it; ours are {ours}")
    return recipe
