"""Box text of the model families: one object a family that writes, reads and rewrites it.

The reading never raises, takes time linear in the text, and counts what it could not read under a reason:

``malformed``     numbers in brackets that are not four numbers of the family's kind
``out_of_range``  a number outside the family's space
``inverted``      right edge left of the left edge, or bottom above top
``truncated``     a bracket that is still open where the text ends

A box of zero width or height is read (two decimals make one of a small object); its IoU with anything is 0. Nothing here looks at
the truth: a family has one space, and text that does not fit it is a failure, never another space.

Knows nothing about models or files. Families with tags, JSON or location tokens are added as classes beside :class:`BracketFormat`.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from spr_plugin.boxes import Box, Space
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl

Span = tuple[int, int]


@dataclass(frozen=True)
class Mention:
    """A phrase and the box or boxes written right after it.

    Attributes:
        phrase: the words before the first box, back to the previous box or punctuation, without leading "and", "a", "the" … May be "".
        boxes: one or more, in the family's space.
        span: (start, end) in the text of all the mention's coordinates, brackets included.
        phrase_span: (start, end) of `phrase`.
        spans: (start, end) of each box; boxes that share one bracket share one span.
    """

    phrase: str
    boxes: tuple[Box, ...]
    span: Span
    phrase_span: Span
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Parsed:
    """What was read from a text.

    Attributes:
        mentions: in the text's order.
        failures: reason → count (reasons: the module's docstring).
        failed_spans: (start, end) of each coordinate text that could not be read.
    """

    mentions: tuple[Mention, ...] = ()
    failures: dict[str, int] = field(default_factory=dict)
    failed_spans: tuple[Span, ...] = ()

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes in the text's order. `BoxFormat.rewrite` numbers boxes by their place in this tuple."""
        return tuple(box for mention in self.mentions for box in mention.boxes)


class BoxFormat(ABC):
    """How one model family writes boxes.

    Attributes:
        family: the name that ``--spr_box_format`` and a checkpoint's ``spr_box`` use.
        space_name: name of the family's coordinate space.
        aspect: how the picture reaches the model ("pad", "square" …) where the space depends on it, else None.
    """

    family: str
    space_name: str
    aspect: str | None = None

    @abstractmethod
    def space(self, width: int, height: int) -> Space:
        """The family's coordinate space on a picture of `width` x `height` pixels."""

    @abstractmethod
    def write(self, box: Box) -> str:
        """The text of one box of any space, rounded as the family's training data is and kept inside the family's range."""

    @abstractmethod
    def parse(self, text: str, width: int, height: int) -> Parsed:
        """Read all boxes of `text`, which speaks of a picture of `width` x `height` pixels. Never raises."""

    @abstractmethod
    def rewrite(self, text: str, parsed: Parsed, changes: Mapping[int, Box | None], drop_failures: bool = False) -> str:
        """`text` with some coordinates changed and every other character kept.

        `changes` maps a place in ``parsed.boxes`` to the new box, or to None to remove its coordinates; the sentence stays
        well-formed (no double space, no space before punctuation). Boxes without an entry keep their text. With
        `drop_failures` the coordinates that could not be read are removed too.
        """

    @abstractmethod
    def render(self, mentions: Iterable[tuple[str, Box]]) -> str:
        """Phrases with their boxes as the family writes them, joined by commas; "" for a phrase gives the bare box."""

    def describe(self) -> dict[str, str | None]:
        """What a checkpoint's ``config.json`` keeps under ``spr_box``: family, space and aspect."""
        return {"family": self.family, "space": self.space_name, "aspect": self.aspect}


# A bracket with all that follows it up to the next bracket. The three parts share no character, so matching is linear.
_BRACKET = re.compile(r"(\[+)([^\[\]]*)(\]*)")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})")
_INTEGER = re.compile(r"[-+]?[0-9]{1,9}")
_NUMERIC_START = re.compile(r"[-+.\s]*[0-9]")
_NUMERIC_PREFIX = re.compile(r"[-+.,;\s0-9]*")
_PHRASE_END = re.compile(r"[.,;:!?()\[\]\n]")
_LEADING_WORDS = re.compile(r"\s*(?:(?:and|or|with|a|an|the|some|one)(?:\s+|$))*", re.IGNORECASE)
# What may stand between two boxes of one phrase. Only looked for in gaps of at most _GAP characters, to stay linear.
_BETWEEN_BOXES = re.compile(r"\s*(?:,?\s*\band\b|[,;&])?\s*")
_BEFORE_LAST_BOX = re.compile(r"(?<=\])\s*(?:,?\s*\band|[,;&])\s*$")
_GAP = 16


@dataclass(frozen=True)
class BracketFormat(BoxFormat):
    """Families that write ``[x1, y1, x2, y2]``: LLaVA, Ferret, Shikra, CogVLM.

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

    def space(self, width: int, height: int) -> Space:
        if self.space_name == "padded_square":
            return Space.padded_square(width, height)
        if self.bins:
            return Space.grid(width, height, self.bins)
        return Space.normalized(width, height)

    def write(self, box: Box) -> str:
        return self._write_group([box])

    def parse(self, text: str, width: int, height: int) -> Parsed:
        space = self.space(width, height)
        groups, failures, failed_spans = [], {}, []
        for match in _BRACKET.finditer(text):
            boxes, reason, end = self._read_bracket(match, space, len(text))
            if boxes:
                groups.append((boxes, (match.start(), end)))
            elif reason:
                failures[reason] = failures.get(reason, 0) + 1
                failed_spans.append((match.start(), end))
        return Parsed(_mentions(text, groups, failed_spans), failures, tuple(failed_spans))

    def rewrite(self, text: str, parsed: Parsed, changes: Mapping[int, Box | None], drop_failures: bool = False) -> str:
        edits, first = [], 0
        for mention in parsed.mentions:
            own = {place: changes[first + place] for place in range(len(mention.boxes)) if first + place in changes}
            first += len(mention.boxes)
            if own:
                edits.append((mention.span, self._rewrite_mention(text, mention, own)))
        return _apply(text, edits + [(span, "") for span in parsed.failed_spans if drop_failures])

    def render(self, mentions: Iterable[tuple[str, Box]]) -> str:
        return ", ".join(f"{phrase} {self.write(box)}".lstrip() for phrase, box in mentions)

    # --- writing

    def _write_group(self, boxes: Sequence[Box]) -> str:
        """Several boxes in one bracket (one box, unless the family has a `joiner`)."""
        inner = (self.joiner or "").join(self.comma.join(map(self._write_number, self._values(box))) for box in boxes)
        return "[" * self.depth + inner + "]" * self.depth

    def _values(self, box: Box) -> tuple[float, ...]:
        return box.to(self.space(box.space.width, box.space.height)).xyxy

    def _write_number(self, value: float) -> str:
        if self.bins:
            step = min(max(math.floor(value + 1e-6), 0), self.bins - 1)
            return f"{step:03d}" if self.fixed_digits else str(step)
        text = f"{min(max(0.0, value), 1.0):.{self.decimals}f}"
        return text if self.fixed_digits else str(float(text))

    # --- reading

    def _read_bracket(self, match: re.Match, space: Space, text_length: int) -> tuple[list[Box], str | None, int]:
        """(boxes, None, end) of a readable bracket, ([], reason, end) of a broken one, ([], None, end) of one that is prose."""
        opening, inner, closing = match.groups()
        if not closing:
            return [], *_unclosed(match, text_length)
        depth = min(len(opening), len(closing))
        end = match.end() - (len(closing) - depth)
        if not _NUMERIC_START.match(inner) or ("," not in inner):
            return [], None, end
        if depth != len(opening) or depth != self.depth:
            return [], "malformed", end
        boxes = [self._read_box(part, space) for part in (inner.split(";") if self.joiner else [inner])]
        broken = next((box for box in boxes if isinstance(box, str)), None)
        return ([], broken, end) if broken else (boxes, None, end)

    def _read_box(self, text: str, space: Space) -> Box | str:
        """The box of ``"x1, y1, x2, y2"``, or the reason why it is none."""
        number = _INTEGER if self.bins else _NUMBER
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 4 or not all(number.fullmatch(part) for part in parts):
            return "malformed"
        x1, y1, x2, y2 = values = [float(part) for part in parts]
        if min(values) < 0 or max(values) > (self.bins or 1):
            return "out_of_range"
        return "inverted" if x2 < x1 or y2 < y1 else Box(x1, y1, x2, y2, space)

    # --- rewriting

    def _rewrite_mention(self, text: str, mention: Mention, changes: Mapping[int, Box | None]) -> str:
        """The mention's coordinate text after `changes` (place in the mention → box or None); "" if no box is left."""
        kept, end = [], 0
        for span, places in groupby(range(len(mention.boxes)), key=mention.spans.__getitem__):
            places = list(places)
            boxes = [box for place in places if (box := changes.get(place, mention.boxes[place])) is not None]
            if boxes:
                new = self._write_group(boxes) if any(place in changes for place in places) else text[slice(*span)]
                kept.append((text[end : span[0]] if kept else "") + new)
            end = span[1]
        return "".join(kept)


def remove_coordinates(text: str, parsed: Parsed) -> str:
    """`text` without any coordinates, readable or not; the words stay and the sentence stays well-formed."""
    spans = [mention.span for mention in parsed.mentions] + list(parsed.failed_spans)
    return _apply(text, [(span, "") for span in spans])


def _unclosed(match: re.Match, text_length: int) -> tuple[str | None, int]:
    """(reason, end) of an opening bracket without its closing one; prose in brackets has no reason."""
    inner, start = match.group(2), match.start(2)
    numeric = _NUMERIC_PREFIX.match(inner).group()
    if start + len(numeric) == text_length:
        return "truncated", text_length
    is_attempt = _NUMERIC_START.match(inner) and "," in numeric
    return ("malformed" if is_attempt else None), start + len(numeric.rstrip(" \t\n,;"))


def _mentions(text: str, groups: Sequence[tuple[list[Box], Span]], failed_spans: Sequence[Span]) -> tuple[Mention, ...]:
    """Join the brackets that follow one phrase, and find that phrase. `groups` are (boxes, span) of one bracket each."""
    joined: list[list[tuple[list[Box], Span]]] = []
    for boxes, span in groups:
        end = joined[-1][-1][1][1] if joined else -_GAP - 1
        if span[0] - end <= _GAP and _BETWEEN_BOXES.fullmatch(text, end, span[0]):
            joined[-1].append((boxes, span))
        else:
            joined.append([(boxes, span)])
    # A phrase begins after the coordinates before it, readable or not.
    ends = [0, *sorted([span[1] for _, span in groups] + [end for _, end in failed_spans])]
    return tuple(_mention(text, group, ends[bisect_right(ends, group[0][1][0]) - 1]) for group in joined)


def _mention(text: str, group: Sequence[tuple[list[Box], Span]], low: int) -> Mention:
    """The mention of adjoining brackets; `low` is where its phrase can begin at the earliest."""
    start = group[0][1][0]
    phrase_span = _phrase_span(text, low, start)
    boxes = tuple(box for boxes, _ in group for box in boxes)
    spans = tuple(span for boxes, span in group for _ in boxes)
    return Mention(text[slice(*phrase_span)], boxes, (start, spans[-1][1]), phrase_span, spans)


def _phrase_span(text: str, low: int, high: int) -> Span:
    """Where the phrase that ends before `high` lies: after the last punctuation since `low`, without leading articles."""
    end = low + len(text[low:high].rstrip().rstrip("(,:").rstrip())
    start = max((match.end() for match in _PHRASE_END.finditer(text, low, end)), default=low)
    return (_LEADING_WORDS.match(text, start, end).end(), end)


def _apply(text: str, edits: Iterable[tuple[Span, str]]) -> str:
    """`text` with each (span, new text) in place; the spans must not overlap. An edit to "" closes the gap that it leaves."""
    pieces, place, glue = [], 0, ""
    for (start, end), new in _joined_cuts(text, sorted(edits)):
        if not new:
            start, end = _gap(text, place, start, end)
        if start > place or new:
            pieces.append(glue + text[place:start] + new)
            glue = ""
        if not new:
            glue = _glue(pieces[-1][-1:] if pieces else "", text[end : end + 1])
        place = end
    return "".join(pieces) + glue + text[place:]


def _joined_cuts(text: str, edits: Sequence[tuple[Span, str]]) -> list[tuple[Span, str]]:
    """The edits, cuts that only an "and" or a comma separates made one."""
    joined: list[tuple[Span, str]] = []
    for (start, end), new in edits:
        (first, last), before = joined[-1] if joined else ((0, 0), "none")
        if not new and not before and start - last <= _GAP and _BETWEEN_BOXES.fullmatch(text, last, start):
            joined[-1] = ((first, end), "")
        else:
            joined.append(((start, end), new))
    return joined


def _gap(text: str, low: int, start: int, end: int) -> Span:
    """What to cut with the coordinates at (start, end), not before `low`: round brackets around them, spaces, an "and" of two boxes."""
    while start > low and text[start - 1] == "(" and text[end : end + 1] == ")":
        start, end = start - 1, end + 1
    if link := _BEFORE_LAST_BOX.search(text, max(low, start - _GAP), start):
        start = link.start()
    while start > low and text[start - 1] in " \t":
        start -= 1
    while end < len(text) and text[end] in " \t":
        end += 1
    return start, end


def _glue(before: str, after: str) -> str:
    """What to put between the text before and the character after a cut."""
    if not before or before[-1] in "( \t\n" or not after or after in ".,;:!?)\n":
        return ""
    return " "


LLAVA_SPACES = {"pad": "padded_square"}
GRID = {"space_name": "grid1000", "bins": 1000}


def llava(aspect: str | None = "pad") -> BoxFormat:
    """LLaVA 1.5 and NeXT: ``[0.28, 0.34, 0.4, 0.71]``, 0-1 of the padded square (`aspect` "pad"), else 0-1 of the picture."""
    aspect = aspect or "pad"
    return BracketFormat("llava", LLAVA_SPACES.get(aspect, "normalized"), aspect)


def ferret() -> BoxFormat:
    """Ferret: ``[120, 300, 550, 810]``, ``int(1000 x / W)``, at most 999, of the unpadded picture."""
    return BracketFormat("ferret", **GRID)


def shikra() -> BoxFormat:
    """Shikra: ``[0.120,0.300,0.550,0.810]``, 0-1 of the padded square; several boxes share a bracket, split by ";"."""
    return BracketFormat("shikra", "padded_square", decimals=3, fixed_digits=True, comma=",", joiner=";")


def cogvlm() -> BoxFormat:
    """CogVLM: ``[[120,300,550,810]]``, three digits, thousandths of the picture; several boxes share a bracket, split by ";"."""
    return BracketFormat("cogvlm", **GRID, fixed_digits=True, comma=",", depth=2, joiner=";")


FAMILIES = {"ferret": ferret, "shikra": shikra, "cogvlm": cogvlm}


def box_format(family: str, aspect: str | None = None) -> BoxFormat:
    """The box format of a model family, ours or a plugin's. Raises UserError for a family that no plugin knows."""
    from spr_plugin.plugins import hook

    found = hook().spr_box_format(family=family, aspect=aspect)
    if found is None:
        known = ", ".join(sorted(["llava", *FAMILIES]))
        raise UserError(f"--spr_box_format {family}: no such family; built in are {known}, others come with --spr_plugin FILE")
    return found


@hookimpl
def spr_box_format(family: str, aspect: str | None) -> BoxFormat | None:
    """The built-in families."""
    if family == "llava":
        return llava(aspect)
    return FAMILIES[family]() if family in FAMILIES else None
