"""The questions of a recipe other than SPR (`spatial_ssrl`, `spatial_thinker`, `actial`), scored by the
recipe itself: every figure is one of its ``measure``, at its defaults.

    SPR_DATA_ROOT/RECIPE/SPLIT.jsonl     see :mod:`spr_plugin.recipes.questions`
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import BadImage, Picture, open_image
from spr_plugin.eval_tasks import fields, metrics
from spr_plugin.eval_tasks.answers import answer_text
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.questions import read_questions

KINDS = (".jsonl",)


def _plain(value: Any, size: fields.Size) -> Any:
    """As `read` made it."""
    return value


FIELDS = {
    "question": fields.text,
    "answer": fields.text,
    "kind": fields.text,
    "shown": _plain,
    "truth": _plain,
}


def read(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The documents of a file of questions, which lies in a folder of its recipe's name, each with the words
    that name it. UserError for a line that is none, and for a picture that is not there.
    """
    for query, where in read_questions(file, recipe_of(file.parent.name)):
        first = query.pictures[0]
        shown = [{"path": one.path, "width": one.width, "height": one.height} for one in query.pictures]
        # As text: what a truth holds differs from kind to kind, and a table's columns do not.
        own = {"question": query.text, "answer": query.truth["answer"], "truth": json.dumps(query.truth)}
        of_first = {"image": first.path, "image_id": first.id, "width": first.width, "height": first.height}
        yield {"id": query.id, **of_first, **own, "kind": query.task, "shown": shown}, where


@functools.cache
def recipe_of(name: str, box_format: str | None = None) -> Recipe[Any]:
    """A recipe at its defaults, for a model that writes boxes so; None to read questions alone."""
    return find_recipe(SPRConfig(spr_recipe=[name]), named_format(box_format) if box_format else None)


def query_of(doc: dict) -> Query:
    """The query that a document was."""
    pictures = tuple(
        Picture(doc["image_id"], *map(one.get, ("path", "width", "height"))) for one in doc["shown"]
    )
    return Query(doc["id"], pictures, doc["question"], json.loads(doc["truth"]), doc["kind"], 0)


def doc_to_visual(doc: dict) -> list:
    """All pictures of the question, in their order."""
    try:
        return [open_image(one["path"], doc["id"]) for one in doc["shown"]]
    except BadImage as error:
        refuse(f"a picture of document {doc['id']} does not open: {error}")


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The question as the recipe puts it in training."""
    return recipe_of(doc["recipe"], doc["box_format"]).question(query_of(doc))


def doc_to_target(doc: dict) -> str:
    """A right answer in the recipe's form, as far as its truth tells one."""
    return recipe_of(doc["recipe"], doc["box_format"]).worked(query_of(doc)) or doc["answer"]


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → payloads of what the recipe measures."""
    recipe = recipe_of(doc["recipe"], doc["box_format"])
    values = recipe.measure([answer_text(results)], [query_of(doc)])
    figures = {name: (value, 1.0) for name, value in values.items()}
    # Every figure of every document, so that all have the same.
    kinds = {f"{recipe.BEST} {doc['kind']}": (values[recipe.BEST], 1.0)}
    made = {name: metrics.payload(doc, [value]) for name, value in values.items()}
    return made | {metrics.DETAILS: metrics.detail(doc, [{"id": doc["id"], "figures": figures | kinds}])}
