"""The first stage, a run's queries: the log that is there already, or what the recipe makes of its source,
once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace

from spr_plugin.config.queries import QueriesFlags
from spr_plugin.data.pictures import MISSING, refuse_no_folder, refuse_outside
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.progress import listed, say
from spr_plugin.recipes.base import Query, Recipe, Source
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, changes


def wanted_of(recipe: Recipe, queries: Sequence[Query], samples: int) -> int:
    """How many candidates these queries have."""
    return sum(len(recipe.prompts(query)) for query in queries) * samples


def pictures_folder(config: QueriesFlags, source: Source) -> str | None:
    """Where the pictures lie: in ``--spr_image_folder``, beside ``--spr_pairs``, or in the host's folder."""
    if config.spr_image_folder is None and config.spr_pairs:
        return os.path.dirname(config.spr_pairs)
    return config.spr_image_folder or source.image_folder


def find_queries(
    folder: Folder, config: QueriesFlags, recipe: Recipe, source: Source, anew: bool = False
) -> tuple[list[Query], Counter | None]:
    """The queries whose log is in ``folder`` and None, or new ones and what was left out by reason.

    Args:
        source: of the host; its folder of pictures counts where the flags name none.

    Raises:
        UserError: the source gives none, or a picture lies outside the folder of pictures.
    """
    pictures, skipped = pictures_folder(config, source), None
    queries = None if anew else held_queries(folder, recipe)
    if queries is None:
        refuse_no_folder(pictures, "--spr_image_folder" if config.spr_image_folder else "--image_folder")
        skipped = Counter()
        queries = _made(recipe, replace(source, image_folder=pictures, skipped=skipped))
    if not config.spr_allow_outside:
        named = ((picture.id, picture.path) for query in queries for picture in query.pictures)
        refuse_outside(named, pictures or "", "--spr_image_folder", "--spr_allow_outside")
    return queries, skipped


def _made(recipe: Recipe, source: Source) -> list[Query]:
    """What a recipe makes of its source; it is said where pictures were looked for that are not there."""
    looked = f"pictures were looked for in {os.path.abspath(source.image_folder or '')}"
    looked += ", --spr_image_folder names another folder"
    try:
        queries = list(recipe.queries(source))
        if not queries:
            why = listed(source.skipped) or "its source is empty, or too small"
            raise UserError(f"--spr_recipe {recipe.name} makes no query of what it is given ({why})")
    except UserError as error:
        if MISSING not in str(error):
            raise
        raise UserError(f"{error}; {looked}") from None
    if MISSING in source.skipped:
        say(f"{MISSING} {source.skipped[MISSING]}: {looked}")
    return queries


def settled_queries(
    folder: Folder,
    settings: dict[str, dict],
    config: QueriesFlags,
    recipe: Recipe,
    source: Source,
    restart: Set[str] = frozenset(),
    over: bool = False,
) -> tuple[list[Query], Counter | None, Changes]:
    """As :func:`find_queries`, and what of ``folder`` is to be made again: queries that come out the same
    make nothing behind them again. Nothing is written.

    Args:
        restart: stages to be made again in any case.
        over: everything is.
    """
    changed = changes(folder, {} if over else settings, restart)
    anew = over or "queries" in changed.again
    queries, skipped = find_queries(folder, config, recipe, source, anew)
    if anew and not over and {query.id for query in queries} == folder.log("queries").read().keys():
        changed = changes(folder, settings, restart, stays={"queries"})
    return queries, skipped, changed


def held_queries(folder: Folder, recipe: Recipe) -> list[Query] | None:
    """The queries whose log in ``folder`` is whole; None where it is not, or not there."""
    if not folder.skipped.exists():
        return None
    records = folder.log("queries").read()
    return None if records.damaged else [recipe.read(record) for record in records.values()]


def logged_queries(folder: Folder, recipe: Recipe) -> list[Query]:
    """The queries of a run that was begun. UserError where their log was damaged since."""
    queries = held_queries(folder, recipe)
    if queries is None:
        raise UserError(
            f"{folder.path / 'queries'} was damaged while it was read: run the same command again"
        )
    return queries


def log_queries(folder: Folder, recipe: Recipe, queries: list[Query], skipped: Counter) -> None:
    """Write the log of queries, and what was left out by reason."""
    folder.log("queries").write({**query.to_record(), "recipe": recipe.of(query).name} for query in queries)
    write_json(folder.skipped, dict(skipped))
