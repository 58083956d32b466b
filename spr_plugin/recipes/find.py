"""Which recipe a run follows, or which several as one."""

from collections.abc import Mapping
from typing import Any

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.plugins import ask
from spr_plugin.recipes.base import Recipe
from spr_plugin.recipes.given import GivenPairs
from spr_plugin.recipes.several import Several


def find_recipe(config: SPRConfig, box_format: BoxFormat | None) -> Recipe[Any]:
    """The recipe of ``--spr_recipe``, all of them as one, or that of ``--spr_pairs``, for a model that writes
    boxes as `box_format` does, if that is known. UserError where nobody has it.
    """
    if config.spr_pairs:
        return GivenPairs(config.spr_pairs, box_format)
    portions = dealt(config.spr_regions, config.recipes())
    recipes = []
    for name, regions in portions.items():
        own = config.but_for({"spr_recipe": [name], "spr_regions": regions})
        recipe: Recipe[Any] | None = ask("spr_recipe", name=name, config=own, box_format=box_format)
        if recipe is None:
            ours = "spr, spatial_ssrl, spatial_thinker and actial"
            raise UserError(f"--spr_recipe {name}: no plugin has it; ours are {ours}")
        recipes.append(recipe)
    return Several(recipes) if len(recipes) > 1 else recipes[0]


def dealt(regions: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of the queries each recipe makes. UserError where one would make none."""
    total, before, reached, portions = sum(shares.values()), 0.0, 0, {}
    for name, share in shares.items():
        before += share
        until = round(regions * before / total)
        portions[name], reached = until - reached, until
        if not portions[name]:
            raise UserError(
                f"--spr_recipe {name} would make none of --spr_regions {regions}: leave it out, or take more"
            )
    return portions
