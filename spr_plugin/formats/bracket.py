"""Families that write ``[x1, y1, x2, y2]``: LLaVA, Ferret, Shikra, CogVLM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spr_plugin.boxes import Box, Space
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.parsed import GAP, Parsed
from spr_plugin.formats.reading import Reading, Written, checked, end_of, parts, whole_number

# A bracket with all that follows it up to the next bracket. The three parts share no character, so matching
# is linear.
_BRACKET = re.compile(r"(\[+)([^\[\]]*)(\]*)")
_BETWEEN_LISTED = re.compile(r"\s*(?:[,;]\s*)?")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})")
_INTEGER = re.compile(r"[-+]?[0-9]{1,9}")
_NUMERIC_START = re.compile(r"[-+.\s]*[0-9]")
_NUMERIC_PREFIX = re.compile(r"[-+.,;\s0-9]*")


@dataclass(frozen=True)
class BracketFormat(BoxFormat):
    """Four numbers in brackets.

    Attributes:
        bins: steps of the grid (``int(bins * x / width)``, as integers), or None for 0-1 decimals.
        decimals: digits after the point of a 0-1 number; ignored for a grid.
        fixed_digits: ``0.120`` and ``007`` rather than ``0.12`` and ``7``.
        comma: what stands between the numbers.
        depth: how many brackets a box is wrapped in.
        joiner: what separates several boxes in one bracket, or None where the family writes each in its own.
    """

    family: str
    space_name: str
    aspect: str | None = None
    bins: int | None = None
    decimals: int = 2
    fixed_digits: bool = False
    comma: str = ", "
    depth: int = 1
    joiner: str | None = None

    @property
    def rounding(self) -> float:
        # Steps of a grid are cut off, decimals are rounded: a whole one, or half of one.
        return 1.0 if self.bins else 0.5 * 10**-self.decimals

    def space(self, width: int, height: int) -> Space:
        if self.space_name == "padded_square":
            return Space.padded_square(width, height)
        if self.bins:
            return Space.grid(width, height, self.bins)
        return Space.normalized(width, height)

    def parse(self, text: str, width: int, height: int) -> Parsed:
        space = self.space(width, height)
        reading = Reading(text)
        brackets, index = list(_BRACKET.finditer(text)), 0
        while index < len(brackets):
            end = self._end_of_list(text, brackets, index)
            if end:
                span = brackets[index].start(), brackets[end - 1].end()
                reading.add(
                    [
                        written
                        for bracket in brackets[index:end]
                        for written in self._read_inner(bracket, space)
                    ],
                    span,
                )
            else:
                self._read_bracket(brackets[index], space, len(text), reading)
            index = end or index + 1
        return reading.parsed()

    def render(self, mentions: Iterable[tuple[str, Box]]) -> str:
        return ", ".join(f"{phrase} {self.write(box)}".lstrip() for phrase, box in mentions)

    # --- writing

    def write_group(self, boxes: Sequence[Box]) -> str:
        inner = [self.comma.join(map(self._write_number, self._values(box))) for box in boxes]
        opening, closing = "[" * self.depth, "]" * self.depth
        return opening + (self.joiner or f"{closing}, {opening}").join(inner) + closing

    def _values(self, box: Box) -> tuple[float, ...]:
        return box.to(self.space(box.space.width, box.space.height)).xyxy

    def _write_number(self, value: float) -> str:
        if self.bins:
            step = whole_number(value, self.bins - 1)
            return f"{step:03d}" if self.fixed_digits else str(step)
        text = f"{min(max(0.0, value), 1.0):.{self.decimals}f}"
        return text if self.fixed_digits else str(float(text))

    # --- reading

    def _end_of_list(self, text: str, brackets: Sequence[re.Match[str]], first: int) -> int | None:
        """Where the list of boxes ``[[x1, y1, x2, y2], [x1, …]]`` ends that begins with a bracket: the index
        after its last one.

        None where the bracket begins no list. One box in brackets too many is another family's box, not a
        list.
        """
        opened = len(brackets[first][1])
        depth = opened - 1  # of each box, which in a list may stand in a bracket less than alone
        if depth not in (self.depth, self.depth - 1) or not depth or not _looks_numeric(brackets[first][2]):
            return None
        for index in range(first, len(brackets)):
            opening, _, closing = brackets[index].groups()
            if len(opening) != opened:
                return None
            # One bracket more than a box has closes the list.
            if index > first and len(closing) == depth + 1:
                return index + 1
            after = text[brackets[index].end() : brackets[index].end() + GAP].partition("[")[0]
            if len(closing) != depth or not _BETWEEN_LISTED.fullmatch(after):
                return None
            opened = depth
        return None

    def _read_bracket(self, match: re.Match[str], space: Space, text_length: int, reading: Reading) -> None:
        """Add the boxes of a bracket, or why they cannot be read; a bracket of prose adds nothing."""
        opening, inner, closing = match.groups()
        if not closing:
            reason, end = _unclosed(match, text_length)
            if reason:
                reading.doubt((match.start(), end), cut=reason == "truncated")
            return
        depth = min(len(opening), len(closing))
        # Closing brackets too many belong to what is around it.
        span = (match.start(), match.end() - (len(closing) - depth))
        if not _looks_numeric(inner):
            return
        if depth != len(opening) or depth != self.depth:
            reading.doubt(span)
        else:
            reading.add(self._read_inner(match, space), span)

    def _read_inner(self, match: re.Match[str], space: Space) -> list[Written]:
        """The boxes, or reasons, of what stands in one pair of brackets."""
        return [
            (self._read_box(match.string[slice(*span)], space), span)
            for span in parts(match.string, *match.span(2), self.joiner)
        ]

    def _read_box(self, text: str, space: Space) -> Box | str:
        """The box of ``"x1, y1, x2, y2"``, or the reason why it is none."""
        number = _INTEGER if self.bins else _NUMBER
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 4 or not all(number.fullmatch(part) for part in parts):
            return "malformed"
        return checked([float(part) for part in parts], (self.bins or 1, self.bins or 1), space)


def _looks_numeric(inner: str) -> bool:
    """Whether what stands in a bracket begins as coordinates do."""
    return bool(_NUMERIC_START.match(inner)) and "," in inner


def _unclosed(match: re.Match[str], text_length: int) -> tuple[str | None, int]:
    """(reason, end) of an opening bracket without its closing one; prose in brackets has no reason."""
    inner, start = match.group(2), match.start(2)
    numeric = inner[: end_of(_NUMERIC_PREFIX, inner, 0)]
    if start + len(numeric) == text_length:
        return "truncated", text_length
    is_attempt = _NUMERIC_START.match(inner) and ("," in numeric or numeric == inner)
    is_attempt = is_attempt and len(_NUMBER.findall(numeric)) < 4  # four are one in any family
    return ("malformed" if is_attempt else None), start + len(numeric.rstrip(" \t\n,;"))


def llava(aspect: str | None = "pad") -> BoxFormat:
    """LLaVA 1.5 and NeXT: ``[0.28, 0.34, 0.4, 0.71]``, 0-1 of the padded square (`aspect` "pad"), else 0-1 of
    the picture.
    """
    aspect = aspect or "pad"
    return BracketFormat("llava", "padded_square" if aspect == "pad" else "normalized", aspect)


def ferret() -> BoxFormat:
    """Ferret: ``[120, 300, 550, 810]``, ``int(1000 x / W)``, at most 999, of the unpadded picture."""
    return BracketFormat("ferret", "grid1000", bins=1000)


def shikra() -> BoxFormat:
    """Shikra: ``[0.120,0.300,0.550,0.810]``, 0-1 of the padded square; several boxes share a bracket, split
    by ";".
    """
    return BracketFormat("shikra", "padded_square", decimals=3, fixed_digits=True, comma=",", joiner=";")


def cogvlm() -> BoxFormat:
    """CogVLM: ``[[120,300,550,810]]``, three digits, thousandths of the picture; several boxes share a
    bracket, split by ";".
    """
    return BracketFormat("cogvlm", "grid1000", bins=1000, fixed_digits=True, comma=",", depth=2, joiner=";")
