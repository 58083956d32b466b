"""A text in parts: which box each part speaks of, and which words another text does not have. Plain data in
and out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

Span = tuple[int, int]  # start and end in a text
MOST_WORDS = 1000  # of texts that are compared: the time grows with the square of it
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Part:
    """A part of a text.

    Attributes:
        text: as it stands there.
        boxes: keys of the boxes that it speaks of.
        name: the key of the first of them, where no part before speaks of it first; else "".
        pieces: the text once more, each piece with whether its words differ.
    """

    text: str
    boxes: tuple[str, ...]
    name: str
    pieces: tuple[tuple[str, bool], ...]


def parts(text: str, spans: Iterable[tuple[Span, str]], differ: Iterable[Span] = ()) -> list[Part]:
    """The text cut where what it speaks of changes.

    Args:
        spans: (start, end) of what speaks of a box, and the box's key; they may overlap or lie off the text.
        differ: (start, end) of words that differ, in their order.
    """
    marked = [(*_within(span, text), key) for span, key in spans]
    marked += [(*_within(span, text), "") for span in differ]
    marked = [(start, end, key) for start, end, key in marked if start < end]
    begins: dict[int, list[str]] = {}
    ends: dict[int, list[str]] = {}
    for start, end, key in marked:
        begins.setdefault(start, []).append(key)
        ends.setdefault(end, []).append(key)
    cuts = sorted({0, len(text), *begins, *ends})
    open_keys: list[str] = []
    grouped: list[tuple[tuple[str, ...], list[tuple[str, bool]]]] = []
    for start, end in pairwise(cuts):
        for key in ends.get(start, ()):
            open_keys.remove(key)
        open_keys += begins.get(start, ())
        boxes = tuple(dict.fromkeys(key for key in open_keys if key))
        piece = (text[start:end], "" in open_keys)
        if grouped and grouped[-1][0] == boxes:
            grouped[-1][1].append(piece)
        else:
            grouped.append((boxes, [piece]))
    return _named(grouped)


def _within(span: Span, text: str) -> Span:
    start, end = span
    return max(0, start), min(end, len(text))


def _named(grouped: Iterable[tuple[tuple[str, ...], list[tuple[str, bool]]]]) -> list[Part]:
    named: set[str] = set()
    made = []
    for boxes, pieces in grouped:
        name = boxes[0] if boxes and boxes[0] not in named else ""
        named.add(name)
        made.append(Part("".join(piece for piece, _ in pieces), boxes, name, tuple(pieces)))
    return made


def differing(first: str, second: str) -> tuple[list[Span], list[Span]] | None:
    """(start, end) of the words of each text that the other one does not have in their place; None where the
    texts are too long to be compared."""
    words = [list(_WORD.finditer(text)) for text in (first, second)]
    if max(map(len, words)) > MOST_WORDS:
        return None
    word_texts = [[word[0] for word in row] for row in words]
    matcher = SequenceMatcher(None, word_texts[0], word_texts[1], autojunk=False)
    spans: tuple[list[Span], list[Span]] = ([], [])
    for how, *bounds in matcher.get_opcodes():
        if how != "equal":
            for row, mine, (low, high) in zip(words, spans, (bounds[:2], bounds[2:])):
                mine += _joined(row[low:high])
    return spans


def _joined(words: Sequence[re.Match[str]]) -> list[Span]:
    """One span from the first word to the last."""
    return [(words[0].start(), words[-1].end())] if words else []
