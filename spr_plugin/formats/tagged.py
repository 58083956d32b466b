"""Families that mark phrase and boxes with tags: Qwen-VL, InternVL, Kosmos-2."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from spr_plugin.boxes import Box, Space
from spr_plugin.formats.attempts import Span
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.parsed import Parsed
from spr_plugin.formats.reading import Reading, Written, checked, end_of, parts, whole_number

_SEPARATORS = re.compile(r"[\s,;]*")


@dataclass(frozen=True)
class TaggedFormat(BoxFormat):
    """``<ref>a dog</ref><box>…</box>``: a family's subclass says what stands between the box tags.

    A phrase without tags is found as in the bracket families. A box tag that is never closed costs the
    coordinates after it.
    """

    family: str
    space_name: str
    bins: int
    last: int
    phrase_tags = ("<ref>", "</ref>")
    box_tags = ("<box>", "</box>")
    coordinates = re.compile(r"[\s0-9,;()\[\].+-]*")

    @abstractmethod
    def read_inner(self, text: str, low: int, high: int, space: Space) -> list[Written]:
        """Boxes, or reasons, of text[low:high], which stands between two box tags, and where each lies."""

    @abstractmethod
    def write_inner(self, boxes: Sequence[Box]) -> str:
        """What stands between the tags for boxes in the family's space."""

    @property
    def rounding(self) -> float:
        return 1.0

    def space(self, width: int, height: int) -> Space:
        return Space.grid(width, height, self.bins)

    def write_group(self, boxes: Sequence[Box]) -> str:
        opening, closing = self.box_tags
        return (
            opening
            + self.write_inner([box.to(self.space(box.space.width, box.space.height)) for box in boxes])
            + closing
        )

    def render(self, mentions: Iterable[tuple[str, Box]]) -> str:
        before, after = self.phrase_tags
        return ", ".join(
            (f"{before}{phrase}{after}" if phrase else "") + self.write(box) for phrase, box in mentions
        )

    def parse(self, text: str, width: int, height: int) -> Parsed:
        reading, space, opened = Reading(text), self.space(width, height), None
        for tag in self._tags.finditer(text):
            # A tag that opens while one is open: the one before was never closed.
            if tag.group() == self.box_tags[0]:
                self._never_closed(text, opened, reading)
                opened = tag
            elif opened:
                reading.add(
                    self.read_inner(text, opened.end(), tag.start(), space), (opened.start(), tag.end())
                )
                opened = None
        self._never_closed(text, opened, reading)
        return reading.parsed(lambda low, high: self._phrase(text, low, high))

    @cached_property
    def _tags(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.box_tags)))

    def _never_closed(self, text: str, opened: re.Match[str] | None, reading: Reading) -> None:
        if opened:
            end = end_of(self.coordinates, text, opened.end())
            reading.doubt((opened.start(), end), cut=end == len(text))

    def _phrase(self, text: str, low: int, high: int) -> tuple[Span, int] | None:
        """(span, start of its tag) of the marked phrase that ends right before `high`."""
        before, after = self.phrase_tags
        # Where the closing tag would begin, were it the last before `high`.
        close = low + len(text[low:high].rstrip()) - len(after)
        if close < low or not text.startswith(after, close):
            return None
        start = text.rfind(before, low, close)
        return None if start < 0 else ((start + len(before), close), start)

    def read_members(
        self, text: str, low: int, high: int, space: Space, find: re.Pattern[str], read: re.Pattern[str]
    ) -> list[Written]:
        """The members of a list, which `find` finds and `read` reads; nothing but separators stands between
        them.
        """
        spans = [match.span() for match in find.finditer(text, low, high)]
        # From the end of each member to the start of the next, and to both edges.
        gaps = zip([low, *(end for _, end in spans)], [*(start for start, _ in spans), high])
        if not spans or not all(_SEPARATORS.fullmatch(text, *gap) for gap in gaps):
            return [("malformed", (low, high))]
        numbers = [read.fullmatch(text, *span) for span in spans]
        limits = (self.last, self.last)
        return [(checked([float(v) for v in four.groups()], limits, space) if four else "malformed", span)
                for four, span in zip(numbers, spans)]  # fmt: skip

    def _integers(self, values: Iterable[float]) -> list[int]:
        return [whole_number(value, self.last) for value in values]


class QwenVL(TaggedFormat):
    """``<ref>a dog</ref><box>(120,300),(550,810)</box>``, ``int(999 x / W)``."""

    _pattern = re.compile(r"\(\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\)\s*,\s*\(\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\)")
    _member = re.compile(r"\([^()]*\)\s*,\s*\([^()]*\)")

    def read_inner(self, text: str, low: int, high: int, space: Space) -> list[Written]:
        return self.read_members(text, low, high, space, self._member, self._pattern)

    def write_group(self, boxes: Sequence[Box]) -> str:
        return "".join(TaggedFormat.write_group(self, [box]) for box in boxes)

    def write_inner(self, boxes: Sequence[Box]) -> str:
        x1, y1, x2, y2 = self._integers(boxes[0].xyxy)
        return f"({x1},{y1}),({x2},{y2})"


class InternVL(TaggedFormat):
    """``<ref>a dog</ref><box>[[120, 300, 550, 810]]</box>``, thousandths; several boxes share the tags."""

    _outer = re.compile(r"\s*\[(.*)\]\s*", re.DOTALL)
    _pattern = re.compile(r"\[\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\]")
    _member = re.compile(r"\[[^\[\]]*\]")

    def read_inner(self, text: str, low: int, high: int, space: Space) -> list[Written]:
        outer = self._outer.fullmatch(text, low, high)
        if not outer:
            return [("malformed", (low, high))]
        return self.read_members(text, *outer.span(1), space, self._member, self._pattern)

    def write_inner(self, boxes: Sequence[Box]) -> str:
        return "[" + ", ".join(str(self._integers(box.xyxy)) for box in boxes) + "]"


class Kosmos2(TaggedFormat):
    """``<phrase>a dog</phrase><object><patch_index_0044><patch_index_0863></object>``: the cells of two
    corners, read as their centres.

    A box within one row or one column of cells is read as these cells whole, since two centres would leave it
    no area.
    """

    phrase_tags = ("<phrase>", "</phrase>")
    box_tags = ("<object>", "</object>")
    coordinates = re.compile(r"(?:<patch_index_\d{4}>|</delimiter_of_multi_objects/>)*")
    _joiner = "</delimiter_of_multi_objects/>"
    _pattern = re.compile(r"\s*<patch_index_(\d{4})><patch_index_(\d{4})>\s*")

    def read_inner(self, text: str, low: int, high: int, space: Space) -> list[Written]:
        return [
            (self._read(self._pattern.fullmatch(text, *span), space), span)
            for span in parts(text, low, high, self._joiner)
        ]

    def _read(self, match: re.Match[str] | None, space: Space) -> Box | str:
        if not match:
            return "malformed"
        # A cell's number is row * bins + column.
        (top, left), (bottom, right) = (divmod(int(cell), self.bins) for cell in match.groups())
        if top >= self.bins or bottom >= self.bins:
            return "out_of_range"
        start, end = (0.0, 1.0) if left == right or top == bottom else (0.5, 0.5)
        return checked([left + start, top + start, right + end, bottom + end], (self.bins, self.bins), space)

    def write_inner(self, boxes: Sequence[Box]) -> str:
        return self._joiner.join(
            f"<patch_index_{first:04d}><patch_index_{last:04d}>" for first, last in map(self._cells, boxes)
        )

    def _cells(self, box: Box) -> tuple[int, int]:
        left, top = self._integers((box.x1, box.y1))
        # A box that ends at a cell's edge does not reach the next one; algebra misses an edge by a hair.
        right, bottom = (min(max(math.ceil(value - 1 - 1e-6), 0), self.last) for value in (box.x2, box.y2))
        # A box without a side is one cell, and not none.
        return top * self.bins + left, max(bottom, top) * self.bins + max(right, left)


def qwen_vl() -> BoxFormat:
    """Qwen-VL (the first): 0-999 of the picture."""
    return QwenVL("qwen-vl", "grid999", 999, 999)


def internvl() -> BoxFormat:
    """InternVL: 0-1000 of the picture."""
    return InternVL("internvl", "grid1000", 1000, 1000)


def kosmos2() -> BoxFormat:
    """Kosmos-2: 32 x 32 cells of the picture."""
    return Kosmos2("kosmos-2", "grid32", 32, 31)
