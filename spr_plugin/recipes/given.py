"""Preference pairs of one's own, ``--spr_pairs FILE``, as a recipe: the file says what was asked and which of
two answers is better. Nothing is sampled, and no model scores.

A line of the file is a pair as TRL has it and ``spr export --format trl`` writes it:
``{"images": ["a.png"], "prompt": "…", "chosen": "…", "rejected": "…"}``, each text also as the one message of
a conversation, the pictures also under ``images_file_names``. They lie in ``--spr_image_folder``, or as seen
from the file's folder.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spr_plugin.data.pictures import Picture, image_size
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.loading import read_json_lines
from spr_plugin.progress import listed
from spr_plugin.recipes.base import MOST_PICTURES, Judged, JudgedAnswer, Mark, Prompt, Query, Source
from spr_plugin.recipes.by_text import ByText
from spr_plugin.recipes.written import written_in

if TYPE_CHECKING:
    from spr_plugin.formats import BoxFormat

SIDES = ("chosen", "rejected")
IMAGES = ("images", "images_file_names")
SHORT = 8  # words of an answer that still is one


class GivenPairs(ByText[Query]):
    """Pairs that were made elsewhere.

    Args:
        file: with a pair a line.
        box_format: how their answers write boxes, to draw them; None draws none.
    """

    name = "pairs"
    BEST = "like_chosen"
    WATCHED: Mapping[str, float] = {}

    def __init__(self, file: str, box_format: BoxFormat | None):
        self.file, self.box_format = file, box_format

    def queries(self, source: Source) -> list[Query]:
        """A query a pair. Pictures that cannot be read are counted, and so is a pair that stands there
        twice.
        """
        queries: dict[str, Query] = {}
        for number, row in read_json_lines(self.file, f"--spr_pairs {self.file}"):
            given = read_pair(row, f"--spr_pairs {self.file}, line {number}")
            pictures = _pictures(source.image_folder or "", given["images"])
            if isinstance(pictures, str):
                source.skipped[pictures] += 1
                continue
            id = digest([given[name] for name in ("images", "prompt", *SIDES)])
            if id in queries:
                source.skipped["duplicate"] += 1
                continue
            truth = {side: given[side] for side in SIDES}
            queries[id] = Query(id, pictures, given["prompt"], truth, self.name, int(id[:15], 16))
        if not queries:
            why = listed(source.skipped) or "it is empty"
            raise UserError(f"--spr_pairs {self.file}: holds no pair that can be used ({why})")
        return list(queries.values())

    def prompts(self, query: Query) -> list[Prompt]:
        return [Prompt("given", query.text)]

    def answers(self, query: Query) -> list[str]:
        """Both, the chosen one first."""
        return [query.truth[side] for side in SIDES]

    def judged(self, query: Query, texts: Sequence[str]) -> Iterator[JudgedAnswer]:
        """1 for the chosen one, 0 for the other; whatever pairs them, neither takes the other's place."""
        for text in texts:
            chosen = text == query.truth["chosen"]
            score, kept = (1.0, None) if chosen else (0.0, "rejected")
            yield JudgedAnswer(text, {}, score, None, text, {}, score, kept, "chosen" if chosen else None)

    def measure(self, texts: Sequence[str], queries: Sequence[Query]) -> dict[str, float]:
        """How like the chosen answers these are, word by word: 1 where they are equal."""
        words = [(text.split(), query.truth["chosen"].split()) for text, query in zip(texts, queries)]
        alike = [difflib.SequenceMatcher(None, *both, autojunk=False).ratio() for both in words]
        return {"like_chosen": sum(alike) / len(alike)}

    def draw(self, query: Query, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        """The boxes that a text writes, of one that speaks of a single picture."""
        return [
            (self._written(query, one.text), self._written(query, one.repaired)) for one in judged.answers
        ]

    def _written(self, query: Query, text: str) -> list[Mark]:
        if len(query.pictures) > 1:
            return []
        return written_in(text, self.box_format, query.pictures[0])

    def worked(self, query: Query, short: bool = False) -> str:
        chosen: str = query.truth["chosen"]
        return " ".join(chosen.split()[:SHORT]) if short else chosen


def _pictures(folder: str, names: Sequence[str]) -> tuple[Picture, ...] | str:
    """A pair's pictures, or the reason why one cannot be read."""
    pictures = []
    for name in names:
        path = os.path.join(folder, name)
        size = image_size(path)
        if isinstance(size, str):
            return size
        pictures.append(Picture(name, path, *size))
    return tuple(pictures)


def read_pair(row: object, where: str) -> dict[str, Any]:
    """``{"images", "prompt", "chosen", "rejected"}`` of a line of the file. UserError that begins with
    `where`.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: is no table with images, prompt, chosen and rejected")
    images = next((row[name] for name in IMAGES if name in row), None)
    named = isinstance(images, list) and all(isinstance(name, str) and name for name in images)
    if not named or not 1 <= len(images or ()) <= MOST_PICTURES:
        raise UserError(f"{where}: images is no list of one to {MOST_PICTURES} names of files")
    texts = {name: _text(row.get(name), f"{where}: {name}") for name in ("prompt", *SIDES)}
    if texts["chosen"].split() == texts["rejected"].split():
        raise UserError(f"{where}: chosen and rejected are the same")
    return {"images": images, **texts}


def _text(value: object, where: str) -> str:
    """A text, or that of the one message of a conversation."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0].get("content")
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} is no text, nor the one message of a conversation whose content is a text")
    return value
