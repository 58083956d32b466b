"""What was read from a text, and edits that keep its sentence well-formed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from spr_plugin.boxes import Box
from spr_plugin.formats.attempts import Span
from spr_plugin.formats.tokens import QUOTES

# What may stand between two boxes of one phrase. Only looked for in gaps of at most GAP characters, to stay
# linear.
_BETWEEN_BOXES = re.compile(r"\s*(?:(?:,\s*)?\band\b\s*|[,;&]\s*)?")
_BEFORE_LAST_BOX = re.compile(r"(?<=[\]>])\s*(?:(?:,\s*)?\band|[,;&])\s*$")
Edit = tuple[Span, "str | None"]


@dataclass(frozen=True)
class Mention:
    """A phrase and the box or boxes written right after it.

    Attributes:
        phrase: the words before the first box, back to the previous box or punctuation, without leading
            "and", "a", "the" …, or what the family's tags or label say. May be "".
        boxes: one or more, in the family's space.
        span: (start, end) in the text of all the mention's coordinates, brackets or tags included.
        phrase_span: (start, end) of `phrase`.
        spans: (start, end) of each box.
        brackets: (start, end) of the brackets or tags around each box, which boxes of one list share.
        whole: (start, end) of what goes when no box is left; where that is more than `span`, the phrase stays
            in its place.
    """

    phrase: str
    boxes: tuple[Box, ...]
    span: Span
    phrase_span: Span
    spans: tuple[Span, ...]
    brackets: tuple[Span, ...]
    whole: Span


@dataclass(frozen=True)
class Failure:
    """Coordinates that could not be read: where, why (the module's docstring), and of what phrase.

    `inside` is the (start, end) of the list that readable boxes share with it.
    """

    span: Span
    reason: str
    phrase: str = ""
    inside: Span | None = None


@dataclass(frozen=True)
class Parsed:
    """What was read from a text, and what could not be, each in the text's order."""

    mentions: tuple[Mention, ...] = ()
    failed: tuple[Failure, ...] = ()

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes in the text's order. `BoxFormat.rewrite` numbers boxes by their index in this tuple."""
        return tuple(box for mention in self.mentions for box in mention.boxes)

    @property
    def failures(self) -> dict[str, int]:
        """Reason → count, the reason that comes first in the text first."""
        return dict(Counter(failure.reason for failure in self.failed))

    @property
    def failed_spans(self) -> tuple[Span, ...]:
        """(start, end) of each coordinate text that could not be read."""
        return tuple(failure.span for failure in self.failed)

    @property
    def spoiled_lists(self) -> frozenset[Span]:
        """(start, end) of each list of readable boxes that holds one which could not be read."""
        return frozenset(failure.inside for failure in self.failed if failure.inside)


_AROUND = {"(": ")", "[": "]", "{": "}", "（": "）", "“": "”", "‘": "’", **{quote: quote for quote in QUOTES}}
GAP = 16
TWO_BOXES = len("1 2 3 4 5 6 7 8")


def outside(parsed: Parsed) -> list[Span]:
    """The spans of what could not be read, without those in a list of readable boxes, which is written anew
    or goes as a whole.
    """
    return [failure.span for failure in parsed.failed if not failure.inside]


def bare(mention: Mention) -> Edit:
    """The edit that takes all coordinates from a mention: its words stay, its tags go."""
    return mention.whole, (None if mention.whole == mention.span else mention.phrase or None)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """`text` with each (span, new text) in place; the spans must not overlap. None for a text closes the gap
    that is left.
    """
    pieces: list[str] = []
    done, glue = 0, ""  # up to where the text is written, and what is still to be put there
    # By their spans alone: a text and None do not compare.
    for (start, end), new in _joined_cuts(text, sorted(edits, key=itemgetter(0))):
        if new is None:
            # Not back into what is written already.
            start, end = _gap(text, done, start, end)
        # Nothing between two cuts: the glue of the first waits for what comes.
        if start > done or new:
            pieces.append(glue + text[done:start] + (new or ""))
            glue = ""
        if new is None:
            glue = _glue(pieces[-1][-1:] if pieces else "", text[end : end + 1])
        done = end
    return "".join(pieces) + glue + text[done:]


def _joined_cuts(text: str, edits: Sequence[Edit]) -> list[Edit]:
    """The edits, cuts that only an "and" or a comma separates made one."""
    joined: list[Edit] = []
    for (start, end), new in edits:
        (first, last), before = joined[-1] if joined else ((0, 0), "none")
        if (
            new is None
            and before is None
            and start - last <= GAP
            and _BETWEEN_BOXES.fullmatch(text, last, start)
        ):
            joined[-1] = ((first, end), None)
        else:
            joined.append(((start, end), new))
    return joined


def _gap(text: str, low: int, start: int, end: int) -> Span:
    """What to cut with the coordinates at (start, end), not before `low`: brackets or quotes around them,
    spaces, an "and" of two boxes.
    """
    while start > low and end < len(text) and _AROUND.get(text[start - 1]) == text[end]:
        start, end = start - 1, end + 1
    # A backslash that escaped what is cut.
    while start > low and text[start - 1] == "\\":
        start -= 1
    if link := _BEFORE_LAST_BOX.search(text, max(low, start - GAP), start):
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
