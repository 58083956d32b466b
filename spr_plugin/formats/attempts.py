"""Where a text tries to give coordinates, in whatever form: what a family then cannot read is a failure,
never prose.

An attempt is

- four numbers in one run inside a bracket of any kind, its sides alike or not, closed or not, or between box
  tags (``(at 0.1, 0.2, 0.3, 0.4)``, ``<box 1, 2, 3, 4>``, ``[box]1, 2, 3, 4[/box]``), whatever words stand
  beside them; or parted by a word to two numbers at most;
- brackets of two numbers or more that follow one another (``(1,2),(3,4)``, ``from (1,2) to (3,4)``), and a
  model's location tags (``<patch_index_0044>``);
- four numbers after a box's key (``bbox: 1, 2, 3, 4``, ``(x1, y1, x2, y2) = 1, 2, 3, 4``), or each after a
  side's (``x_1=1, y1 2, right is 3, b: 4``, ``<x1>1</x1>``);
- two numbers or more in a bracket that the text's end cuts off.

A run goes on over punctuation, single letters, units and the words that coordinates are told with. Numbers
that merely stand in a sentence never are an attempt: ``(3, 4, 5 and 6 years old)`` is one, ``3, 4, 5 and 6
years old`` is none. An attempt holds the key, brackets and quotes that would be left behind without it.

The text is looked at as it is shown: HTML entities, full-width and subscript characters, and other scripts'
brackets and quotes stand for the plain ones. One pass over it; time is linear. Knows nothing about families,
spaces or what numbers mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from spr_plugin.formats.shown import as_shown
from spr_plugin.formats.tokens import MARK, NUMERIC, QUOTES, READ, TOKEN

Span = tuple[int, int]


@dataclass(frozen=True, order=True)
class Attempt:
    """One attempt: where it lies, and whether the text's end cuts it off."""

    span: Span
    cut: bool = False


def attempts(text: str) -> list[Attempt]:
    """All attempts of `text`, in its order, none within another; parts that have been read are `READ`."""
    shown, offsets = as_shown(text)
    if not NUMERIC.search(shown) or not MARK.search(shown):
        return []
    scan = _Scan(shown)
    scan.run()
    merged = shared(scan.attempts, scan.wholes)
    # Each may grow up to its neighbours.
    lows = [0, *(attempt.span[1] for attempt in merged[:-1])]
    highs = [*(attempt.span[0] for attempt in merged[1:]), len(shown)]
    spans = (_quoted(shown, *bounds) for bounds in zip((attempt.span for attempt in merged), lows, highs))
    return [
        Attempt((offsets[start], offsets[end]), attempt.cut) for (start, end), attempt in zip(spans, merged)
    ]


def without(text: str, spans: Iterable[Span]) -> str:
    """`text` with `READ` in the place of each character of `spans`, which are in order and do not overlap,
    and nowhere else.
    """
    text, pieces, done = text.replace(READ, " "), [], 0
    for start, end in spans:
        pieces += [text[done:start], READ * (end - start)]
        done = end
    return "".join(pieces) + text[done:]


def shared(innermost: Iterable[Attempt], frames: Iterable[Attempt]) -> list[Attempt]:
    """`innermost` with the `frames` around them: what lies in one frame shares all of it, and a frame that
    holds none is one.
    """
    rows = sorted(
        (each.span, is_frame, each.cut)
        for is_frame, several in ((False, innermost), (True, frames))
        for each in several
    )
    made: list[Attempt] = []
    index = 0
    while index < len(rows):
        (start, end), inner, cut = rows[index][0], [], False
        while index < len(rows) and rows[index][0][0] < end:
            span, is_frame, is_cut = rows[index]
            end, cut, index = max(end, span[1]), cut or is_cut, index + 1
            if not is_frame:
                inner.append(span[0])
        shares = list(pairwise([start, *inner[1:], end]))
        made += [Attempt(share, cut and share[1] == end) for share in shares]
    return made


def _around(text: str, span: Span) -> Span:
    """`span` with the quotes around it."""
    start, end = span
    while start and text[start - 1] in QUOTES and text[start - 1] == text[end : end + 1]:
        start, end = start - 1, end + 1
    return start, end


def _quoted(text: str, span: Span, low: int, high: int) -> Span:
    """`span` with the quote beside it, within text[low:high], that a quote in it opens or closes."""
    start, end = span
    # An odd number inside: one of them belongs to the quote outside.
    while end < high and text[end] in QUOTES and text.count(text[end], start, end) % 2:
        end += 1
    while start > low and text[start - 1] in QUOTES and text.count(text[start - 1], start, end) % 2:
        start -= 1
    return start, end


class _Key(NamedTuple):
    """A key: where it starts, how many numbers it marks, whether "is" makes it one, and whether
    ":", "=" or "is" did.
    """

    start: int
    marks: int = 0
    spoken: bool = True
    made: bool = False


@dataclass
class _Bracket:
    """An open bracket, or the text around all of them, and the run of numbers that goes on in it.

    Attributes:
        start: where it opens, a key before it included.
        kind: "tag", "<", another opening character, or "" for the text itself.
        attempts_before: how many attempts there were when it opened.
        numbers, words: all numbers in it, those of inner brackets too, and its ordinary words.
        holds_read: whether something in it has been read.
        run: (start, end) of the run.
        run_numbers: how many numbers it has.
        marked: how many of these say that they are coordinates: by a key, or a bracket of two or more.
        opened: whether the run is what the bracket begins with.
        runs: (span, opened) of runs of four that are attempts if it closes.
    """

    start: int = 0
    kind: str = ""
    attempts_before: int = 0
    numbers: int = 0
    words: int = 0
    holds_read: bool = False
    run: Span = (0, 0)
    run_numbers: int = 0
    marked: int = 0
    opened: bool = False
    runs: list[tuple[Span, bool]] = field(default_factory=list)

    def add(self, span: Span, count: int, marked: int) -> None:
        """Numbers that the run goes on with."""
        if not self.run_numbers:
            self.run = span
            self.opened = bool(self.kind) and not (self.numbers or self.words or self.holds_read)
        self.run = (self.run[0], span[1])
        self.run_numbers, self.marked = self.run_numbers + count, self.marked + marked
        self.numbers += count

    def extend_over(self, span: Span) -> None:
        """A unit, or the end of a side's tag, goes with the number that it stands behind."""
        if self.run_numbers and self.run[1] >= span[0] - 1:
            self.run = (self.run[0], span[1])

    def has_few_words(self) -> bool:
        return not self.holds_read and self.words * 2 <= self.numbers


class _Scan:
    """The pass over one text: a method a kind of token."""

    def __init__(self, text: str):
        # The text itself is the outermost bracket, so that one is always open.
        self.text, self.open, self.tags = text, [_Bracket()], 0
        self.attempts: list[Attempt] = []  # the innermost ones
        # Brackets that are coordinates as a whole, whatever attempts are in them.
        self.wholes: list[Attempt] = []
        self.key: _Key | None = None

    def run(self) -> None:
        for token in TOKEN.finditer(self.text):
            kind, span = token.lastgroup, token.span()
            assert kind, "each of the token's alternatives has a name"
            if kind in ("box", "named", "side"):
                before = self.key or _Key(_around(self.text, span)[0])
                marks = 1 if kind == "side" else 4
                # X1, y_min: said of nothing else.
                corner = kind == "side" and token.group()[0] in "xyXY" and span[1] - span[0] > 1
                self.key = _Key(before.start, max(before.marks, marks), not token["thing"], corner)
            elif self.key and (kind == "equals" or (kind == "is" and self.key.spoken)):
                self.key = self.key._replace(made=True)
            elif kind == "side_tag":
                self.key = _Key(span[0], marks=1, made=True)
            elif kind == "from":
                self.key = _Key(span[0], made=True)
            elif kind == "unit":
                self.open[-1].extend_over(span)
            elif kind != "told":
                key, self.key = self.key if self.key and self.key.made else None, None
                self.take(kind, token, span, key)
        self.end_of_text()

    def take(self, kind: str, token: re.Match[str], span: Span, key: _Key | None) -> None:
        """A token, of any kind but those of a key, with the key before it."""
        bracket, start, marks = self.open[-1], key.start if key else span[0], key.marks if key else 0
        if kind == "number":
            if marks == 4:  # four numbers after a box's key are a box
                self.end_run(bracket)
            bracket.add((start, span[1]), 1, marks)
        elif kind in ("cell", "pair"):
            count = 2 if token["pair"] else 1
            bracket.add(span, count, count)
        elif kind == "tag":
            tag = token.group()
            if tag[1] == "/" or tag[2] == "/" or "_end" in tag.lower():
                self.closing_tag(span)
            else:
                self.opening("tag", start)
        elif kind == "opening":
            self.opening(token.group()[-1], start)
        elif kind == "closing":
            self.closing(token.group(), span)
        elif kind == "read":
            self.end_run(bracket)
            bracket.holds_read = True
        elif kind in ("word", "is", "other_tag"):
            self.end_run(bracket)
            bracket.words += 1
        elif kind == "next" and bracket.run_numbers >= 4:
            self.end_run(bracket)

    def end_run(self, bracket: _Bracket, stray: int | None = None) -> None:
        """The run is over; in the text itself it is an attempt where its numbers, or the `stray` end of a
        bracket, say so.
        """
        if bracket.run_numbers >= 4 and bracket.kind and bracket.marked < 4:
            # Not an attempt yet: the bracket may become one as a whole.
            bracket.runs.append((bracket.run, bracket.opened))
        elif bracket.run_numbers >= 4 and (bracket.marked >= 4 or stray):
            self.attempts.append(Attempt((bracket.run[0], stray or bracket.run[1])))
        bracket.run_numbers = bracket.marked = 0

    def opening(self, kind: str, start: int) -> None:
        self.tags += kind == "tag"
        self.open.append(_Bracket(start, kind, len(self.attempts)))

    def closing_tag(self, span: Span) -> None:
        while self.tags and self.open[-1].kind != "tag":  # it ends all brackets that were opened in it
            self.closed(span[0])
        self.closing("tag", span)

    def closing(self, mark: str, span: Span) -> None:
        if mark[-1] == ">" and self.open[-1].kind != "<":
            return  # an arrow
        if self.open[-1].kind:
            self.closed(span[1])
        else:
            self.end_run(self.open[-1], stray=span[1])

    def closed(self, end: int) -> None:
        """The innermost bracket ends."""
        bracket, outer = self.open.pop(), self.open[-1]
        self.tags -= bracket.kind == "tag"
        self.end_run(bracket)
        # Whether an attempt lies in it already.
        inner = bool(bracket.runs) or len(self.attempts) > bracket.attempts_before
        # Nothing to be left without its numbers.
        alone = not bracket.words or not inner or bracket.kind in ("tag", "<")
        if bracket.numbers >= 4 and alone and (bracket.has_few_words() or (inner and not bracket.holds_read)):
            self.whole(bracket, end)
        elif bracket.runs:
            self.attempts += [Attempt(run) for run, _ in bracket.runs]
        elif not inner and bracket.has_few_words():
            # few numbers in a bracket of their own: a part of what is around it
            outer.add((bracket.start, end), bracket.numbers, bracket.numbers if bracket.numbers >= 2 else 0)
            outer.words += bracket.words
            return
        self.hand_on(bracket, outer)

    def hand_on(self, bracket: _Bracket, outer: _Bracket) -> None:
        """What the bracket around `bracket` knows of it."""
        self.end_run(outer)
        outer.numbers, outer.words = outer.numbers + bracket.numbers, outer.words + bracket.words
        outer.holds_read |= bracket.holds_read

    def whole(self, bracket: _Bracket, end: int, cut: bool = False) -> None:
        """All of a bracket is coordinates."""
        one = Attempt((bracket.start, end), cut)
        self.wholes.append(one)
        if len(bracket.runs) > 1:
            self.attempts += [Attempt(run) for run, _ in bracket.runs]
        elif len(self.attempts) == bracket.attempts_before:
            self.attempts.append(one)

    def end_of_text(self) -> None:
        """Close what is still open; a bracket that holds nothing but numbers was cut off."""
        # From the innermost bracket outwards, as if all of them ended here.
        end, cut = len(self.text), False
        while len(self.open) > 1:
            bracket, outer = self.open.pop(), self.open[-1]
            bare, coordinates = (
                not bracket.words and not bracket.holds_read,
                bracket.has_few_words() and bracket.numbers >= 4,
            )
            if (bare and bracket.numbers >= 2) or (
                coordinates and not bracket.runs and len(self.attempts) == bracket.attempts_before
            ):
                self.whole(bracket, end, cut=True)
                self.hand_on(bracket, outer)
            elif bare:
                cut = bool(bracket.numbers) or cut
                outer.add((bracket.start, end), bracket.numbers, bracket.numbers)
            else:
                self.end_run(bracket)
                self.attempts += [Attempt((bracket.start, run[1])) for run, opened in bracket.runs if opened]
                self.hand_on(bracket, outer)
        text = self.open[0]
        if cut and text.marked >= 2 and text.run[1] == end:
            self.attempts.append(Attempt((text.run[0], end), cut=True))
        else:
            self.end_run(text)
