"""Where a text tries to give coordinates, in whatever form: what a family then cannot read is a failure, never prose.

An attempt is

- four numbers in a bracket of any kind, its sides alike or not, closed or not, or between box tags
  (``(0.1, 0.2, 0.3, 0.4)``, ``<|box_start|>(1,2),(3,4)<|box_end|>``), with a word to two numbers at most;
- brackets of two numbers or more that follow one another (``(1,2),(3,4)``), and a model's location tags
  (``<patch_index_0044>``);
- four numbers after a box's key (``bbox: 1, 2, 3, 4``), or each after a side's (``x1=1, y1=2, x2=3, y2=4``);
- two numbers or more in a bracket that the text's end cuts off.

Numbers that merely stand in a sentence never are one. One pass over the text's brackets, tags, keys, numbers
and words; time is linear. Knows nothing about families, spaces or what numbers mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[int, int]

QUOTES = {*"\"'“‘"}
READ = "\0"  # stands in the place of each character that has been read
_TOKEN = re.compile(
    rf"""
    (?P<read>{READ}+)
  | (?P<tag><[/|]*[^\W\d]\w*\|?>)
  | (?P<opening>[\[({{（［【｛⟨〈《〔「〚⟦«] | <(?=\s?[-+]?\.?\d))
  | (?P<closing>[\])}}）］】｝⟩〉》〕」〛⟧»>])
  | (?P<number>\b\d\d?:\d\d(?::\d\d)?\b | (?<![\d/])\d+/\d+/\d+\b(?!/)    # a time or a date counts as one
              | [-+−]?\d+(?:\.\d+)? | \.\d+)
  | (?P<word>\b[xy][012]\b | \bb?box_?2d\b | \bbounding_?box(?:es)?\b | [^\W\d_]+)    # [x0, y0, x1, y1] holds no number
  | (?P<equals>["'”’]?[ ]?[:=：＝]\s*["'“‘]?)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CELL = re.compile(r"<(patch_index|loc|bin|coord|x|y)_?\d+>", re.IGNORECASE)  # a model's location tag
BOX_KEYS = {"box", "bbox", "boxes", "bboxes", "box_2d", "bbox_2d", "box2d", "bbox2d", "bounding_box", "boundingbox", "bounding_boxes", "boundingboxes", "coord", "coords", "coordinate", "coordinates", "xyxy", "xywh"}
BOX_TAGS = BOX_KEYS | {"object", "region", "quad", "loc", "det"}
SIDES = {"x0", "x1", "x2", "y0", "y1", "y2", "x", "y", "w", "h", "cx", "cy", "min", "max", "xmin", "xmax", "ymin", "ymax"}
SIDES |= {"width", "height", "left", "top", "right", "bottom"}
# Words that coordinates are told with; a run of numbers goes on over them, and over single letters.
PLAIN = BOX_KEYS | SIDES | {"bounding", "and", "to", "at", "from", "px", "pixel", "pixels", "upper", "lower", "corner", "center", "centre"}
NUMBERS = {"nan", "inf", "infinity", "null", "none"}
# Without a number and one of these there is no attempt; most answers end here.
_MARK = re.compile(r"[][(){}<>（）［］【】｛｝⟨⟩〈〉《》〔〕「」〚〛⟦⟧«»:=：＝]")
_NUMERIC = re.compile(r"\d|\bnan\b|\binf|\bnull\b|\bnone\b", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Attempt:
    """One attempt: where it lies, and whether the text's end cuts it off."""

    span: Span
    cut: bool = False


def attempts(text: str) -> list[Attempt]:
    """All attempts of `text`, in its order, none within another; parts that have been read are `READ`."""
    if not _NUMERIC.search(text) or not _MARK.search(text):
        return []
    scan = _Scan(text)
    found, made, place, reached = sorted(scan.attempts()), [], 0, 0
    for whole in sorted(scan.wholes, key=lambda whole: (whole.span[0], -whole.span[1])):
        (start, end), first = whole.span, place
        if start < reached:
            continue  # lies in another one
        while first < len(found) and found[first].span[0] < start:
            first += 1
        made += found[place:first]
        place = first
        while place < len(found) and found[place].span[0] < end:
            place += 1
        # What was found in it shares all of it, also what stands around and between.
        starts = [start, *(attempt.span[0] for attempt in found[first + 1 : place]), end]
        shares = zip(starts, starts[1:])
        made += [Attempt(span, attempt.cut) for span, attempt in zip(shares, found[first:place])]
        made[-1] = Attempt(made[-1].span, whole.cut)
        reached = end
    return made + found[place:]


def without(text: str, spans: Iterable[Span]) -> str:
    """`text` with `READ` in the place of each character of `spans`, which are in order and do not overlap, and nowhere else."""
    text, pieces, place = text.replace(READ, " "), [], 0
    for start, end in spans:
        pieces += [text[place:start], READ * (end - start)]
        place = end
    return "".join(pieces) + text[place:]


@dataclass
class _Bracket:
    """An open bracket, or the text around all of them, and the run of numbers that goes on in it over plain words alone.

    Attributes:
        start: where it opens, a key before it included; None for the text itself.
        kind: "tag", "<", another opening character, or "" for the text itself.
        found: how many attempts there were when it opened.
        numbers, words: all numbers in it, those of inner brackets too, and its ordinary words.
        holds_read: whether something in it has been read.
        run: (start, end) of the run.
        run_numbers: how many numbers it has.
        marked: how many of these say that they are coordinates: by a key, or a bracket of two or more.
        opened: whether the run is what the bracket begins with.
    """

    start: int | None = None
    kind: str = ""
    found: int = 0
    numbers: int = 0
    words: int = 0
    holds_read: bool = False
    run: Span = (0, 0)
    run_numbers: int = 0
    marked: int = 0
    opened: bool = False

    def add(self, span: Span, count: int, marked: int) -> None:
        """Numbers that the run goes on with."""
        if not self.run_numbers:
            self.run = span
            self.opened = bool(self.kind) and not (self.numbers or self.words or self.holds_read)
        self.run = (self.run[0], span[1])
        self.run_numbers, self.marked = self.run_numbers + count, self.marked + marked
        self.numbers += count

    def is_coordinates(self, fewest: int = 4) -> bool:
        """Whether what the bracket holds is `fewest` numbers or more with few words among them."""
        return not self.holds_read and self.numbers >= fewest and self.words * 2 <= self.numbers


class _Scan:
    """The pass over one text."""

    def __init__(self, text: str):
        self.text, self.open, self.tags = text, [_Bracket()], 0
        self.found: list[Attempt] = []  # the innermost ones
        self.wholes: list[Attempt] = []  # brackets that are coordinates as a whole, whatever was found in them

    def attempts(self) -> list[Attempt]:
        word, key = None, None  # (span, the word) right before the token; (start, end, whether of a box) of a key there
        for token in _TOKEN.finditer(self.text):
            kind, said, span = token.lastgroup, token.group().lower(), token.span()
            before, keyed = word if word and word[0][1] == span[0] else None, key if key and key[1] == span[0] else None
            word = key = None
            if kind == "number" or (kind == "word" and said in NUMBERS):
                self.number(span, keyed)
            elif kind == "word":
                word = span, said
                if said not in PLAIN and len(said) > 1:
                    self.ordinary()
            elif kind == "equals":
                if before and before[1] in BOX_KEYS | SIDES:
                    start = before[0][0]
                    key = start - (self.text[start - 1 : start] in QUOTES), span[1], before[1] in BOX_KEYS
            elif kind == "tag":
                self.tag(said, span, keyed)
            elif kind == "opening":
                self.opening(said, span, keyed)
            elif kind == "closing":
                self.closing(said, span)
            else:
                self.end_run(self.open[-1])
                self.open[-1].holds_read = True
        self.end_of_text()
        return self.found

    def ordinary(self) -> None:
        """A word of the sentence."""
        self.end_run(self.open[-1])
        self.open[-1].words += 1

    def number(self, span: Span, keyed) -> None:
        if keyed and keyed[2]:  # four numbers after a box's key are a box
            self.end_run(self.open[-1])
        marked = 0 if not keyed else 4 if keyed[2] else 1
        self.open[-1].add((keyed[0] if keyed else span[0], span[1]), 1, marked)

    def tag(self, said: str, span: Span, keyed) -> None:
        name = said.strip("<|/>")
        if cell := _CELL.fullmatch(said):
            count = 2 if cell[1] == "patch_index" else 1
            self.open[-1].add(span, count, count)
        elif name.removesuffix("_start").removesuffix("_end") not in BOX_TAGS:
            self.ordinary()
        elif name.endswith("_end") or said.startswith(("</", "<|/")):
            self.closing(said, span)
        else:
            self.opening(said, span, keyed)

    def end_run(self, bracket: _Bracket, closed_at: int | None = None) -> None:
        """The run is over; it is an attempt where its numbers, or a bracket beside it, say so."""
        if bracket.run_numbers >= 4 and (bracket.marked >= 4 or bracket.opened or closed_at):
            start = bracket.start if bracket.opened else bracket.run[0]
            self.found.append(Attempt((start, closed_at or bracket.run[1])))
        bracket.run_numbers = bracket.marked = 0

    def opening(self, said: str, span: Span, keyed) -> None:
        kind = "tag" if len(said) > 1 else said
        self.tags += kind == "tag"
        self.open.append(_Bracket(keyed[0] if keyed else span[0], kind, len(self.found)))

    def closing(self, said: str, span: Span) -> None:
        if len(said) > 1:  # a tag ends all brackets that were opened in it
            while self.tags and self.open[-1].kind != "tag":
                self.closed(span[0])
        elif said == ">" and self.open[-1].kind != "<":
            return  # an arrow
        if self.open[-1].kind:
            self.closed(span[1])
        else:
            self.end_run(self.open[-1], closed_at=span[1])

    def closed(self, end: int) -> None:
        """The innermost bracket ends."""
        bracket, outer = self.open.pop(), self.open[-1]
        self.tags -= bracket.kind == "tag"
        inner = len(self.found) > bracket.found
        if (bracket.words and (inner or bracket.run_numbers >= 4)) or bracket.holds_read:
            self.end_run(bracket, closed_at=bracket.run[1])
        elif bracket.is_coordinates():
            self.whole(bracket, end)
        elif not inner and bracket.words * 2 <= bracket.numbers:
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
        if len(self.found) == bracket.found:
            self.found.append(one)

    def end_of_text(self) -> None:
        """Close what is still open; a bracket that holds nothing but numbers was cut off."""
        end, cut = len(self.text), False
        while len(self.open) > 1:
            bracket, outer = self.open.pop(), self.open[-1]
            bare = not bracket.words and not bracket.holds_read
            if (bare and bracket.numbers >= 2) or (bracket.is_coordinates() and len(self.found) == bracket.found):
                self.whole(bracket, end, cut=True)
                self.hand_on(bracket, outer)
            elif bare:
                cut = bool(bracket.numbers) or cut
                outer.add((bracket.start, end), bracket.numbers, bracket.numbers)
            else:
                self.end_run(bracket)
                self.hand_on(bracket, outer)
        text = self.open[0]
        if cut and text.marked >= 2 and text.run[1] == end:
            self.found.append(Attempt((text.run[0], end), cut=True))
        else:
            self.end_run(text)
