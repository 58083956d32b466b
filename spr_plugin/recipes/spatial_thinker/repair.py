"""SPR's repair of the boxes in an answer's ``<scene>``: those that are matched to a true object of their
name with IoU > 0.5 take its coordinates, and the others' objects go, with their relationships. All else
stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from spr_plugin.boxes import Array
from spr_plugin.formats.attempts import Span
from spr_plugin.formats.parsed import apply
from spr_plugin.loading import scan
from spr_plugin.recipes.spatial_thinker.answers import Answer
from spr_plugin.recipes.spr.names import Agreement
from spr_plugin.recipes.spr.refinement import match

_BLANK = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"\d")


class Mended(NamedTuple):
    """A repaired text, and how many of its objects were kept and dropped; as it was, with 0 and 0, where
    nothing could be repaired."""

    text: str
    kept: int
    dropped: int


def mend(
    answer: Answer, written: Array, true: Array, agree: Agreement, write: Callable[[Array], list[list[int]]]
) -> Mended:
    """The repaired answer.

    Args:
        written: the answer's boxes (m, 4), in pixels.
        true: the boxes of what was asked about (n, 4), in pixels.
        agree: (m, n) bool, whose names agree.
        write: boxes in pixels → as the answer writes them.

    Reasoning that quotes numbers would speak of other boxes than the scene then: such an answer stays as it
    is.
    """
    ids = answer.graph.ids
    if quotes_numbers(answer):
        return Mended(answer.text, 0, 0)
    matches = match(written, true, agree=agree)
    coordinates = write(true[list(matches.values())])
    new: list[list[int] | None] = [None] * len(ids)
    for index, four in zip(matches, coordinates):
        new[index] = four
    dropped = {id for index, id in enumerate(ids) if new[index] is None}
    return Mended(_rewritten(answer, new, dropped), len(matches), len(dropped))


def quotes_numbers(answer: Answer) -> bool:
    """Whether its reasoning writes digits, those of ids and names aside."""
    text = answer.inside("observe") + "\n" + answer.inside("think")
    for id in sorted(answer.graph.ids, key=len, reverse=True):
        text = text.replace(id, "").replace(id.rpartition(".")[0], "")
    return bool(_NUMBER.search(text))


def _rewritten(answer: Answer, new: Sequence[list[int] | None], gone: set[str]) -> str:
    """The text with these boxes of its objects in their order, without the objects that have none."""
    text, (start, _) = answer.text, answer.spans["scene"]
    parts = _members(text, start)
    edits = []
    if "objects" in parts:
        rows = _elements(text, parts["objects"][0])
        entries = [
            None
            if box is None
            else apply(text[slice(*row)], [(_moved(_members(text, row[0])["bbox"], row), str(box))])
            for row, box in zip(rows, new)
        ]
        edits += _kept(text, rows, entries)
    if "relationships" in parts:
        rows = _elements(text, parts["relationships"][0])
        lost = [gone & {one.subject, one.object} for one in answer.graph.triples]
        edits += _kept(text, rows, [None if ends else text[slice(*row)] for row, ends in zip(rows, lost)])
    return apply(text, edits)


def _moved(span: Span, within: Span) -> Span:
    return span[0] - within[0], span[1] - within[0]


def _kept(text: str, rows: Sequence[Span], entries: Sequence[str | None]) -> list[tuple[Span, str]]:
    """The edit that makes a list's elements `entries`, each behind what stood before it; None for one that
    goes.
    """
    if not rows:
        return []
    kept: list[str] = []
    for index, entry in enumerate(entries):
        if entry is not None:
            kept.append((text[rows[index - 1][1] : rows[index][0]] if kept else "") + entry)
    return [((rows[0][0], rows[-1][1]), "".join(kept))]


# --- where the parts of a JSON text lie, which is known to be one


def _after_blanks(text: str, position: int) -> int:
    blanks = _BLANK.match(text, position)
    return blanks.end() if blanks else position


def _members(text: str, start: int) -> dict[str, Span]:
    """Key → (start, end) of its value, of the object behind `start`; of a key that stands there twice the
    last, as JSON is read."""
    members: dict[str, Span] = {}
    position = _after_blanks(text, _after_blanks(text, start) + 1)
    while text[position] != "}":
        key, position = scan(text, position)
        begin = _after_blanks(text, _after_blanks(text, position) + 1)
        _, end = scan(text, begin)
        members[key] = (begin, end)
        position = _after_blanks(text, end)
        if text[position] == ",":
            position = _after_blanks(text, position + 1)
    return members


def _elements(text: str, start: int) -> list[Span]:
    """(start, end) of each element of the list at `start`."""
    elements: list[Span] = []
    position = _after_blanks(text, start + 1)
    while text[position] != "]":
        _, end = scan(text, position)
        elements.append((position, end))
        position = _after_blanks(text, end)
        if text[position] == ",":
            position = _after_blanks(text, position + 1)
    return elements
