"""``spr data RECIPE``: worked answers to a recipe's questions in LLaVA's JSON, for the host's own trainer (a
model that has never answered in a recipe's form gives no right answers to prefer), and questions to measure
it by.

    TO/images/ID.png     the pictures as the model is shown them; ID-1.png … of a question with several
    TO/cold_start.json   a conversation a question; "file_name" is the (first) picture that it was made of, so
                         that ``--spr_exclude TO/cold_start.json`` has a run ask about others
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import refuse_no_folder, refuse_outside
from spr_plugin.errors import UserError
from spr_plugin.files import disk_errors, write_json
from spr_plugin.ids import digest
from spr_plugin.outputs import refuse_unnamed, refuse_unwritable
from spr_plugin.progress import listed, progress
from spr_plugin.recipes.base import Query, Recipe, Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.questions import write_pictures, write_questions


def write_cold_start(config: SPRConfig, pictures: str, target: str, allow_outside: bool = False) -> str:
    """Write ``config.spr_regions`` worked answers about the pictures of a folder; what was done, in a line.

    Raises:
        UserError: the folder is none or gives no question, or the recipe has no worked answers.
    """
    recipe, queries, left_out = _asked("cold start", config, pictures, target, allow_outside)
    folder = Path(target, "images")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    rows = [_written(recipe, query, folder) for query in progress(queries, len(queries), "writing pictures")]
    write_json(Path(target, "cold_start.json"), rows)
    return f"{len(rows)} worked answers in {os.path.join(target, 'cold_start.json')}; left out: {left_out}"


def write_evaluation(config: SPRConfig, pictures: str, target: str, allow_outside: bool = False) -> str:
    """Write ``config.spr_regions`` questions about the pictures of a folder, to measure models by
    (:mod:`spr_plugin.recipes.questions`); what was done, in a line. UserError as above.
    """
    recipe, queries, left_out = _asked("evaluation", config, pictures, target, allow_outside)
    file = Path(target, recipe.name, "val.jsonl")
    number = write_questions(progress(queries, len(queries), "writing pictures"), file)
    return f"{number} questions in {file}; left out: {left_out}"


def _asked(
    purpose: str, config: SPRConfig, pictures: str, target: str, allow_outside: bool
) -> tuple[Recipe, list[Query], str]:
    """The recipe, its questions about the pictures of a folder, and what was left out."""
    refuse_unnamed("--from", pictures)
    refuse_no_folder(pictures, "--from")
    refuse_unwritable({"--to": target}, folders=True)
    # Not the questions of a run with the same seed.
    seed = int(digest([purpose, config.spr_seed])[:8], 16)
    skipped, recipe = Counter[str](), find_recipe(config.but_for({"spr_seed": seed}), None)
    try:
        queries = list(recipe.queries(Source(image_folder=pictures, skipped=skipped)))
    except UserError as error:  # which names a run's flag
        raise UserError(str(error).replace("--spr_image_folder", "--from")) from None
    left_out = listed(skipped) or "nothing"
    if not queries:
        raise UserError(f"--from {pictures}: no question is made of these pictures (left out: {left_out})")
    if not allow_outside:
        named = ((picture.id, picture.path) for query in queries for picture in query.pictures)
        refuse_outside(named, pictures, "--from", "--allow-outside")
    return recipe, queries, left_out


def _written(recipe: Recipe, query: Query, folder: Path) -> dict[str, object]:
    """The record of a question, whose pictures are written; of several LLaVA-NeXT's loader takes a list."""
    answer = recipe.worked(query)
    if answer is None:
        raise UserError(f"the recipe {recipe.name} has no worked answers to write")
    names = write_pictures(query, folder)
    question = "<image>\n" * len(names) + recipe.question(query)
    return {
        "id": query.id,
        "image": names if len(names) > 1 else names[0],
        "file_name": query.pictures[0].id,
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }
