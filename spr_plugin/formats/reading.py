"""What a scan of a family's text collects: boxes, failures under their reasons, the phrase before each box.

The reading never raises, takes time linear in the text, and counts what it could not read under a reason:

``malformed``     coordinates that are not four numbers of the family's kind, or that are written in no way of
                  the family's (:mod:`spr_plugin.formats.attempts`)
``out_of_range``  a number outside the family's space
``inverted``      right edge left of the left edge, or bottom above top
``truncated``     coordinates that are still open where the text ends

A list of boxes is read whole: one that cannot be read is a failure of its own, and the others stay.

A box of zero width or height is read (two decimals make one of a small object); its IoU with anything is 0.
Nothing here looks at the truth: a family has one space, and text that does not fit it is a failure, never
another space.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from spr_plugin.boxes import Box, Space, finite
from spr_plugin.formats.attempts import Attempt, Span, attempts, shared, without
from spr_plugin.formats.parsed import _BETWEEN_BOXES, GAP, TWO_BOXES, Failure, Mention, Parsed


def whole_number(value: float, last: int) -> int:
    """`value` cut to a whole step of a grid, from 0 to `last`; steps that algebra missed by a hair count as
    reached.
    """
    return min(max(math.floor(value + 1e-6), 0), last)


def checked(values: Sequence[float], limits: tuple[float, float], space: Space) -> Box | str:
    """The box of four numbers, or the reason why it is none; `limits` are the largest x and y."""
    x1, y1, x2, y2 = values
    if not finite(values):
        return "malformed"
    if min(values) < 0 or max(x1, x2) > limits[0] or max(y1, y2) > limits[1]:
        return "out_of_range"
    return "inverted" if x2 < x1 or y2 < y1 else Box(x1, y1, x2, y2, space)


def end_of(pattern: re.Pattern[str], text: str, start: int, stop: int | None = None) -> int:
    """Where what `pattern` matches from `start` on ends; `start` where it matches nothing there."""
    match = pattern.match(text, start, len(text) if stop is None else stop)
    return match.end() if match else start


Written = tuple["Box | str", Span]  # a box, or the reason why it is none, and where it lies
Brackets = tuple[list[tuple[Box, Span]], Span]  # the boxes of one pair of brackets, and where the pair lies
# (low, high) → (span, start of its tags) of the phrase that a family marks right before `high`, or None.
FindPhrase = Callable[[int, int], "tuple[Span, int] | None"]


def parts(text: str, low: int, high: int, joiner: str | None) -> list[Span]:
    """The spans of text[low:high] that `joiner` parts."""
    spans = []
    for part in text[low:high].split(joiner) if joiner else [text[low:high]]:
        spans.append((low, low + len(part)))
        low += len(part) + len(joiner or "")
    return spans


@dataclass
class Reading:
    """Collects what a scan of a text finds: boxes with the span of their brackets, failures, and mentions
    that are whole at once.
    """

    text: str
    groups: list[Brackets] = field(default_factory=list)
    entries: list[Mention] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    doubtful: list[Attempt] = field(default_factory=list)

    def add(self, written: Sequence[Written], span: Span) -> None:
        """One pair of brackets and what is in it: each that is no box is a failure of its own."""
        # Alone, a box lies where its brackets do.
        if len(written) == 1:
            written = [(written[0][0], span)]
        boxes = [(box, own) for box, own in written if isinstance(box, Box)]
        if boxes:
            self.groups.append((boxes, span))
            owns = [own for _, own in written]
        elif all(reason == "malformed" for reason, _ in written):
            return self.doubt(span)
        else:  # the brackets go with what they hold
            # Cut at the boxes' starts, the parts touch: nothing of the brackets is left behind.
            owns = list(pairwise([span[0], *(own[0] for _, own in written[1:]), span[1]]))
        for (box, _), own in zip(written, owns):
            if box == "malformed":
                self.doubt(own)
            elif isinstance(box, str):
                self.fail(box, own)

    def fail(self, reason: str, span: Span, phrase: str = "") -> None:
        self.failed.append(Failure(span, reason, phrase))

    def doubt(self, span: Span, cut: bool = False) -> None:
        """The family's brackets around something else: as many failures as boxes are attempted there, one at
        least.
        """
        self.doubtful.append(Attempt(span, cut))

    def taken(self) -> list[Span]:
        """What has been read or refused, in the text's order."""
        spans = [own for boxes, _ in self.groups for _, own in boxes] + [
            failure.span for failure in self.failed
        ]
        return sorted(spans + [entry.whole for entry in self.entries])

    def unread(self) -> list[Attempt]:
        """The attempts at coordinates in the rest of the text, after what is doubtful has failed."""
        self._settle()
        return attempts(without(self.text, self.taken()))

    def _settle(self) -> None:
        """Fail what is doubtful; two corners that follow one another are one box."""
        spans: list[Attempt] = []
        for one in sorted(self.doubtful):
            last = spans[-1].span if spans else (0, 0)
            both = (last[0], one.span[1])
            if (
                one.span[0] - last[1] <= GAP
                and self._is_corner(last)
                and self._is_corner(one.span)
                and self._tried(both)
            ):
                spans[-1] = Attempt(both, one.cut)
            else:
                spans.append(one)
        self.doubtful = []
        # Shorter than two boxes, it is one attempt whatever is in it.
        several = [one.span for one in spans if one.span[1] - one.span[0] >= TWO_BOXES]
        for failure in shared([tried for span in several for tried in self._tried(span)], spans):
            self.fail("truncated" if failure.cut else "malformed", failure.span)

    def _is_corner(self, span: Span) -> bool:
        return self.text.count(",", *span) == 1 and self.text[span[1] - 1] in ")]>"

    def _tried(self, span: Span) -> list[Attempt]:
        """The attempts in a part of the text."""
        start = span[0]
        return [
            Attempt((start + first, start + last))
            for first, last in (one.span for one in attempts(self.text[slice(*span)]))
        ]

    def parsed(self, find_phrase: FindPhrase | None = None) -> Parsed:
        """What was read; every other attempt at coordinates is a failure."""
        for attempt in self.unread():
            self.fail("truncated" if attempt.cut else "malformed", attempt.span)
        read = sorted([*self.entries, *mentions(self, find_phrase)], key=lambda mention: mention.span)
        return Parsed(tuple(read), tuple(self._failures(read, find_phrase)))

    def _failures(self, read: Sequence[Mention], find_phrase: FindPhrase | None) -> Iterable[Failure]:
        """The failures in order, with their phrases and the lists that they lie in."""
        lists = sorted((span, mention.phrase) for mention in read for span in {*mention.brackets})
        # Where a phrase may begin: behind what was read or refused.
        ends = [0, *sorted(end for _, end in self.taken())]
        for failure in sorted(self.failed, key=lambda failure: failure.span):
            # The last list that begins before it: lists do not overlap, so that no other can hold it.
            (start, end), before = failure.span, bisect_right(lists, (failure.span,)) - 1
            (low, high), phrase = lists[before] if before >= 0 else ((0, 0), "")
            if low <= start and end <= high:
                yield Failure(failure.span, failure.reason, phrase, (low, high))
            else:
                span = _phrase(self.text, ends[bisect_right(ends, start) - 1], start, find_phrase)[0]
                yield Failure(failure.span, failure.reason, failure.phrase or self.text[slice(*span)])


_TO_PHRASE = re.compile(r".*[.,;:!?()\[\]\n]", re.DOTALL)
_LEADING_WORDS = re.compile(r"\s*(?:(?:and|or|with|a|an|the|some|one)(?:\s+|$))*", re.IGNORECASE)


def mentions(reading: Reading, find_phrase: FindPhrase | None = None) -> tuple[Mention, ...]:
    """Join the brackets that follow one phrase, and find that phrase."""
    joined: list[list[Brackets]] = []
    for boxes, span in reading.groups:
        # The end of the last brackets; before any, farther away than a gap may be.
        end = joined[-1][-1][1][1] if joined else -GAP - 1
        if span[0] - end <= GAP and _BETWEEN_BOXES.fullmatch(reading.text, end, span[0]):
            joined[-1].append((boxes, span))
        else:
            joined.append([(boxes, span)])
    # A phrase begins after the coordinates before it, readable or not.
    ends = [0, *sorted([end for _, end in reading.taken()] + [end for _, (_, end) in reading.groups])]
    return tuple(
        _mention(reading.text, group, ends[bisect_right(ends, group[0][1][0]) - 1], find_phrase)
        for group in joined
    )


def _mention(text: str, group: Sequence[Brackets], low: int, find_phrase: FindPhrase | None) -> Mention:
    """The mention of adjoining brackets; `low` is where its phrase can begin at the earliest."""
    start, end = group[0][1][0], group[-1][1][1]
    phrase_span, first = _phrase(text, low, start, find_phrase)
    # (box, span) of all brackets → boxes, spans.
    boxes, spans = zip(*(box for boxes, _ in group for box in boxes))
    brackets = tuple(span for boxes, span in group for _ in boxes)
    return Mention(text[slice(*phrase_span)], boxes, (start, end), phrase_span, spans, brackets, (first, end))


def _phrase(text: str, low: int, high: int, find_phrase: FindPhrase | None) -> tuple[Span, int]:
    """(span, start of its tags) of the phrase of what is written at `high`."""
    return (find_phrase and find_phrase(low, high)) or (_phrase_span(text, low, high), high)


def _phrase_span(text: str, low: int, high: int) -> Span:
    """Where the phrase that ends before `high` lies: after the last punctuation since `low`, without leading
    articles.
    """
    end = low + len(text[low:high].rstrip().rstrip("(,:").rstrip())
    return end_of(_LEADING_WORDS, text, end_of(_TO_PHRASE, text, low, end), end), end


# --- editing
