"""Answers that came with their questions (``--spr_pairs``), as candidates."""

from collections.abc import Sequence

from spr_plugin.recipes.base import Query
from spr_plugin.recipes.given import GivenPairs
from spr_plugin.runs.log import Log
from spr_plugin.sampling.plan import candidate


def take_given(recipe: GivenPairs, queries: Sequence[Query], log: Log) -> None:
    """Write both answers of each query; a second call does nothing."""
    rows = [
        candidate((query, prompt), index, text, recipe)
        for query in queries
        for prompt in recipe.prompts(query)
        for index, text in enumerate(recipe.answers(query))
    ]
    if log.read().keys() != {row["id"] for row in rows}:
        log.write(rows)
