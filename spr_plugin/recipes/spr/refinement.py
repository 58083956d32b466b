"""Box repair: a description's good boxes become ground-truth boxes, its bad ones lose their coordinates (SPR,
"refinement").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from spr_plugin.boxes import Array, Box, Space, iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from spr_plugin.recipes.spr.models import Repair


class Repaired(NamedTuple):
    """A repaired text, what is read in it, and how many of the boxes that were written were kept and
    dropped.
    """

    text: str
    kept: int
    dropped: int
    parsed: Parsed

    @property
    def share(self) -> float:
        """Of the boxes written, those that were kept; 1 where none was written."""
        return 1 - self.dropped / max(1, self.kept + self.dropped)


def refine(
    text: str,
    truth: Array,
    box_format: BoxFormat,
    width: int,
    height: int,
    parsed: Parsed | None = None,
    threshold: float = 0.5,
) -> Repaired:
    """Repair the boxes of `text`, which speaks of a picture of `width` x `height` pixels; `truth` is (n, 4),
    xyxy in these pixels. `parsed` is what was read in it, where that is known.

    Each box that is matched to a box of `truth` with IoU > `threshold` is written anew with that box's
    coordinates. Of all others, and of coordinates that cannot be read, only the coordinates go: the words
    stay and the sentence stays well-formed.
    """
    parsed = parsed or box_format.parse(text, width, height)
    matched = match([box.pixels() for box in parsed.boxes], truth, threshold)
    space = Space.pixels(width, height)
    changes = {
        index: Box.of(map(float, truth[matched[index]]), space) if index in matched else None
        for index in range(len(parsed.boxes))
    }
    repaired = box_format.rewrite(text, parsed, changes, drop_failures=True)
    # What stood around coordinates that went can look like coordinates in its turn.
    while (left := box_format.parse(repaired, width, height)).failed_spans:
        # All open brackets at the end at once: one a turn would take a turn each.
        repaired = box_format.rewrite(repaired, left, {}, drop_failures=True).rstrip(" \t\n,;[(")
    kept = min(len(matched), len(left.boxes))
    return Repaired(repaired, kept, len(parsed.boxes) + len(parsed.failed_spans) - kept, left)


def keep(text: str, truth: Array, box_format: BoxFormat, width: int, height: int, parsed: Parsed) -> Repaired:
    """An ablation: the text as it is, all of its boxes kept."""
    return Repaired(text, len(parsed.boxes), 0, parsed)


def match(predicted: ArrayLike, truth: ArrayLike, threshold: float = 0.5) -> dict[int, int]:
    """One-to-one matching of `predicted` (m, 4) with `truth` (n, 4): index of a predicted box → index of its
    truth.

    Hungarian on IoU. Pairs at or under `threshold` are worth nothing, so none of them keeps a good pair from
    forming.
    """
    overlaps = iou_matrix(predicted, truth)
    worth = np.where(overlaps > threshold, overlaps, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return {int(row): int(column) for row, column in zip(rows, columns) if worth[row, column] > 0}


@hookimpl
def spr_repair(config: SPRConfig) -> Repair | None:
    """``--spr_repair hungarian`` and ``none``."""
    known: dict[str, Repair] = {"hungarian": refine, "none": keep}
    return known.get(config.spr_repair)
