"""Box repair: a description's good boxes become ground-truth boxes, its bad ones go, with their coordinates
alone or with the whole item that they are of (SPR, "refinement").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from spr_plugin.boxes import Array, Box, Space, iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.names import Agreement, head_noun, same_noun, words_of

if TYPE_CHECKING:
    from spr_plugin.recipes.spr.models import Repair


class Repaired(NamedTuple):
    """A repaired text, what is read in it, and how many of the boxes that were written were kept and
    dropped; where items go, how many of the names.
    """

    text: str
    kept: int
    dropped: int
    parsed: Parsed

    @property
    def not_choosable(self) -> str | None:
        """A word why this text may not be chosen, or None."""
        return None

    @property
    def share(self) -> float:
        """Of the boxes (names) written, those that were kept; 1 where none was written."""
        return 1 - self.dropped / max(1, self.kept + self.dropped)


class Uncut(Repaired):
    """Without the coordinates of lost boxes, whose words could not go with them."""

    @property
    def not_choosable(self) -> str | None:
        return "cannot_cut"


def refine(
    text: str,
    truth: Array,
    box_format: BoxFormat,
    width: int,
    height: int,
    parsed: Parsed | None = None,
    threshold: float = 0.5,
    agree: Agreement | None = None,
) -> Repaired:
    """Repair the boxes of `text`, which speaks of a picture of `width` x `height` pixels; `truth` is (n, 4),
    xyxy in these pixels. `parsed` is what was read in it, where that is known; `agree`: see `match`.

    Each box that is matched to a box of `truth` with IoU > `threshold` is written anew with that box's
    coordinates. Of all others, and of coordinates that cannot be read, only the coordinates go: the words
    stay and the sentence stays well-formed.
    """
    parsed = parsed or box_format.parse(text, width, height)
    matched = _matched(parsed, truth, width, height, threshold, agree)
    # None for a box without a match: its coordinates go.
    changes = {index: matched.get(index) for index in range(len(parsed.boxes))}
    repaired, left = _rewritten(text, parsed, changes, box_format, width, height)
    # What the new text reads as counts, and not what was written into it.
    kept = min(len(matched), len(left.boxes))
    return Repaired(repaired, kept, len(parsed.boxes) + len(parsed.failed_spans) - kept, left)


def refine_items(
    text: str,
    truth: Array,
    box_format: BoxFormat,
    width: int,
    height: int,
    parsed: Parsed | None = None,
    threshold: float = 0.5,
    agree: Agreement | None = None,
) -> Repaired:
    """As `refine`, but what loses all of its boxes goes as a whole, and so does what never had one (see
    `BoxFormat.without_items`); `Uncut` where that is not clean. Counted are names.
    """
    parsed = parsed or box_format.parse(text, width, height)
    matched = _matched(parsed, truth, width, height, threshold, agree)
    # The mention of each box.
    owners = [index for index, mention in enumerate(parsed.mentions) for _ in mention.boxes]
    # One matched box keeps its mention.
    gone = set(owners) - {owners[index] for index in matched}
    staying = [index for index, owner in enumerate(owners) if owner not in gone]
    lost = [parsed.mentions[index].phrase for index in gone]
    lost += [failure.phrase for failure in parsed.failed if not failure.inside]
    cut, bare = box_format.without_items(text, parsed, gone)
    counts = len(parsed.mentions) - len(gone), len(lost) + bare
    if cut is not None:
        left = box_format.parse(cut, width, height)
        # The cut text must read as what should be left: no box more, and none moved.
        same = left.boxes == tuple(parsed.boxes[index] for index in staying)
        if same and not _named_yet(cut, left, lost):
            changes = {number: matched.get(index) for number, index in enumerate(staying)}
            repaired, left = _rewritten(cut, left, changes, box_format, width, height)
            if len(left.boxes) == len(matched):
                return Repaired(repaired, *counts, left)
    without, _, _, left = refine(text, truth, box_format, width, height, parsed, threshold, agree)
    return Uncut(without, *counts, left)


def keep(
    text: str,
    truth: Array,
    box_format: BoxFormat,
    width: int,
    height: int,
    parsed: Parsed,
    agree: Agreement | None = None,
) -> Repaired:
    """An ablation: the text as it is, all of its boxes kept."""
    return Repaired(text, len(parsed.boxes), 0, parsed)


def _matched(
    parsed: Parsed, truth: Array, width: int, height: int, threshold: float, agree: Agreement | None
) -> dict[int, Box]:
    """Index of a box that was read → the true box that it is matched to."""
    pairs = match([box.pixels() for box in parsed.boxes], truth, threshold, agree)
    space = Space.pixels(width, height)
    return {index: Box.of(map(float, truth[true]), space) for index, true in pairs.items()}


def _rewritten(
    text: str,
    parsed: Parsed,
    changes: Mapping[int, Box | None],
    box_format: BoxFormat,
    width: int,
    height: int,
) -> tuple[str, Parsed]:
    """`text` with `changes` and without what cannot be read, and what is read in it then."""
    repaired = box_format.rewrite(text, parsed, changes, drop_failures=True)
    # What stood around coordinates that went can look like coordinates in its turn.
    while (left := box_format.parse(repaired, width, height)).failed_spans:
        # All open brackets at the end at once: one a turn would take a turn each.
        repaired = box_format.rewrite(repaired, left, {}, drop_failures=True).rstrip(" \t\n,;[(")
    return repaired, left


def _named_yet(text: str, parsed: Parsed, gone: Iterable[str]) -> bool:
    """Whether words beside the mentions of `text` still speak of something that is `gone`, of whose kind no
    mention is: "The dog sleeps."
    """
    kept = {head_noun(mention.phrase) for mention in parsed.mentions}
    lost = {noun for noun in map(head_noun, gone) if not any(same_noun(noun, other) for other in kept)}
    own = [(min(mention.phrase_span[0], mention.whole[0]), mention.whole[1]) for mention in parsed.mentions]
    # From the end of each mention to the start of the next.
    beside = zip([0, *(end for _, end in own)], [*(start for start, _ in own), len(text)])
    words = {word for low, high in beside for word in words_of(text[low:high])}
    return any(same_noun(noun, word) for noun in lost for word in words if noun)


def match(
    predicted: ArrayLike, truth: ArrayLike, threshold: float = 0.5, agree: Agreement | None = None
) -> dict[int, int]:
    """One-to-one matching of `predicted` (m, 4) with `truth` (n, 4): index of a predicted box → index of its
    truth.

    Hungarian on IoU. Pairs at or under `threshold` are worth nothing, so none of them keeps a good pair from
    forming; nor are those whose names do not `agree` (m, n).
    """
    overlaps = iou_matrix(predicted, truth)
    worth = np.where(overlaps > threshold, overlaps, 0.0)
    if agree is not None:
        worth = worth * agree
    rows, columns = linear_sum_assignment(worth, maximize=True)
    # The assignment is as full as it can be: pairs that are worth nothing are none.
    return {int(row): int(column) for row, column in zip(rows, columns) if worth[row, column] > 0}


@hookimpl
def spr_repair(config: SPRConfig) -> Repair | None:
    """``--spr_repair coordinates``, ``item`` and ``none``."""
    known: dict[str, Repair] = {"coordinates": refine, "item": refine_items, "none": keep}
    return known.get(config.spr_repair)
