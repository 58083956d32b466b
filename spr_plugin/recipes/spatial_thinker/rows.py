"""Questions that somebody has already: rows of STVQA-7K's make, JSON lines.

A row holds `question_only`, `options` (a list, with or without letters) and `answer`: ``<scene>`` with a
graph in pixels of the picture, and ``<answer>`` with the right letter or "(B) text", as the authors' table
has them; `image` (a file name) or `image_id`, whose picture is ``ID.jpg``, and `category`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from spr_plugin.boxes import Space
from spr_plugin.data.annotations import AnnotatedImage
from spr_plugin.data.pictures import image_size
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.loading import parse_json, read_json_lines
from spr_plugin.recipes.spatial_thinker.graph import Graph, Triple, graph_of
from spr_plugin.recipes.spatial_thinker.pictures import objects_of
from spr_plugin.recipes.spatial_thinker.prompts import LETTERS

_ANSWER = re.compile(r"<answer>\s*\(?([A-Za-z])(?:\)[^<]*|\s*)</answer>")
_LETTER = re.compile(r"\([A-Z]\)\s*")


class Row(NamedTuple):
    """A question about a picture, whose annotations are what it asks about; `right` numbers the options."""

    image: AnnotatedImage
    triples: tuple[Triple, ...]
    text: str
    options: tuple[str, ...]
    right: int
    task: str


def read_rows(file: str, folder: str, seed: int, skipped: Counter[str]) -> Iterator[Row]:
    """The rows of a file, in an order drawn by `seed`; those that cannot be used are counted as ``bad_row``,
    and under the reasons of pictures and objects. UserError where its lines are no JSON, or the first is no
    such row.
    """
    name, known = f"--spr_annotations {file}", []
    for number, (line, record) in enumerate(read_json_lines(file, name)):
        try:
            known.append((digest([seed, "order", line]), _read(record, folder)))
        except ValueError as error:
            if not number:
                raise UserError(f"{name}, line {line}: no question of STVQA's make ({error})") from None
            skipped["bad_row"] += 1
    for _, (path, text, options, right, scene, task) in sorted(known, key=itemgetter(0)):
        size = image_size(path)
        if isinstance(size, str):
            skipped[size] += 1
            continue
        rows = [{"id": id, "bbox": box} for id, box in zip(scene.ids, scene.boxes.tolist())]
        objects = objects_of(rows, Space.pixels(*size), skipped)
        ids = {one.id for one in objects}
        triples = tuple(one for one in scene.triples if {one.subject, one.object} <= ids)
        skipped.update({"unknown_id": unknown} if (unknown := len(scene.triples) - len(triples)) else {})
        image = AnnotatedImage(os.path.relpath(path, folder), path, *size, tuple(objects))
        yield Row(image, triples, text, options, right, task)


def _read(record: object, folder: str) -> tuple[str, str, tuple[str, ...], int, Graph, str]:
    """(path, question, options, number of the right one, graph, category); ValueError says what is
    missing.
    """
    if not isinstance(record, Mapping):
        raise ValueError("a row is a table")
    text, options, answer = (record.get(key) for key in ("question_only", "options", "answer"))
    if not isinstance(text, str) or not text.strip():
        raise ValueError("question_only is a text")
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS) or not _texts(options):
        raise ValueError("options are two texts or more")
    scene, closed, _ = str(answer).partition("<scene>")[2].partition("</scene>")
    letter = _ANSWER.search(str(answer))
    if not closed or not letter:
        raise ValueError("answer has <scene> and, in <answer>, a letter")
    right = LETTERS.index(letter[1].upper())
    if right >= len(options):
        raise ValueError(f"answer ({letter[1]}) is none of {len(options)} options")
    file, number, task = (record.get(key) for key in ("image", "image_id", "category"))
    if not isinstance(file, str) and not isinstance(number, (int, str)):
        raise ValueError("image is a file name, or image_id a number")
    path = os.path.join(folder, file if isinstance(file, str) else f"{number}.jpg")
    bare = tuple(_LETTER.sub("", one, count=1).strip() for one in options)
    kind = task if isinstance(task, str) else "question"
    return path, text.strip(), bare, right, graph_of(parse_json(scene)), kind


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)
