"""Boxes as SVG shows them over a picture: where each lies, and the line that is drawn for it beside those of
the other kinds, so that none hides another.

Units are thousandths of the picture's width: lines, letters and distances keep their proportions at every
size of the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from spr_plugin.recipes.base import Mark

WIDTH = 1000.0  # of every picture
LINE, LETTER = 3.0, 24.0  # how thick, how high
WIDE = 0.62  # a letter, by its height
MOVES = 6  # along an edge, by a label's width each, that a label may be moved
Corners = tuple[float, float, float, float]


class Kind(NamedTuple):
    """How boxes of a kind are told from others without colour.

    Attributes:
        letter: before the box's number.
        steps: lines outwards (inwards: below 0) from the box's true edge.
        right, below: the corner at which the letter stands.
        meaning: for the legend.
    """

    letter: str
    steps: int
    right: bool
    below: bool
    meaning: str


# In the order of the legend; their dashes and colours are static/inspect.css's.
KINDS: Mapping[str, Kind] = {
    "region": Kind("Q", 0, True, False, "what is asked about"),
    "truth": Kind("T", 0, False, False, "an annotation's box"),
    "detector": Kind("D", 0, False, False, "a box that a detector added to the truth"),
    "said": Kind("S", 2, True, False, "a box as the model wrote it"),
    "repaired": Kind("R", -2, True, True, "a box after repair"),
    "chosen": Kind("C", -1, False, True, "a box of the chosen text"),
    "rejected": Kind("X", 1, True, True, "a box of the rejected text"),
}
QUIET = ("said", "repaired")  # not shown at first on a pair's page, so that their labels give way
WRITTEN = "written"  # by whatever text a mark is of: it takes that text's kind


@dataclass(frozen=True)
class Drawn:
    """A box in a picture.

    Attributes:
        key: its id in the page; of one text, picture and kind they are numbered from 1.
        label: letter and number.
        xyxy: corners in pixels of the picture, to be read.
        exact, line: (x, y, width, height) of the box itself and of the line that is drawn.
        at: where the label begins, or ends with `right`.
    """

    key: str
    kind: str
    label: str
    name: str
    picture: int
    xyxy: tuple[float, float, float, float]
    exact: tuple[float, float, float, float]
    line: tuple[float, float, float, float]
    at: tuple[float, float]
    right: bool
    spans: tuple[tuple[int, int], ...]


def drawn(
    marks: Iterable[Mark], kind: str, sizes: Sequence[tuple[int, int]], prefix: str = "", written: bool = True
) -> list[Drawn]:
    """What is drawn of a text's marks.

    Args:
        kind: of what the text writes.
        sizes: (width, height) in pixels of each of the query's pictures.
        prefix: makes keys of several texts of a page differ.
        written: whether to draw what the text writes, or what lies around it, which all texts have alike.
    """
    counts: dict[str, int] = {}
    there: dict[tuple[str, int, tuple[float, ...]], int] = {}
    made = []
    for mark in marks:
        if (mark.kind == WRITTEN) != written:
            continue
        named = kind if written else mark.kind if mark.kind in KINDS else "region"
        counts[named] = number = counts.get(named, 0) + 1
        same_box = (named, mark.picture, tuple(mark.xyxy))
        there[same_box] = again = there.get(same_box, -1) + 1
        made.append(_drawn(mark, named, number, again, sizes[mark.picture], f"{prefix}{named}-{number}"))
    return made


def _drawn(mark: Mark, kind: str, number: int, again: int, size: tuple[int, int], key: str) -> Drawn:
    """`again`: how many boxes of this kind lie exactly there already; the label stands beside theirs."""
    how, scale = KINDS[kind], WIDTH / size[0]
    height = size[1] * scale
    left, right = sorted((mark.xyxy[0] * scale, mark.xyxy[2] * scale))
    top, bottom = sorted((mark.xyxy[1] * scale, mark.xyxy[3] * scale))
    label = f"{how.letter}{number}"
    # A line inwards must not turn a small box inside out.
    out = max(how.steps * LINE, -min(right - left, bottom - top) / 4)
    shift = again * LETTER * 0.6 * (len(label) + 1) * (-1 if how.right else 1)
    x = min(max(right if how.right else left, 0.0), WIDTH) + shift
    y = bottom + LETTER if how.below else top - LINE * 2
    return Drawn(
        key,
        kind,
        label,
        mark.name,
        mark.picture,
        mark.xyxy,
        _rounded(left, top, right - left, bottom - top),
        _rounded(left - out, top - out, right - left + 2 * out, bottom - top + 2 * out),
        (round(x, 2), round(min(max(y, LETTER), height - LINE), 2)),
        how.right,
        mark.spans,
    )


def apart(boxes: Iterable[Drawn], picture: Mapping[str, int]) -> list[Drawn]:
    """The boxes of a picture, whichever texts they are of, their labels moved where they would lie on others.

    Args:
        picture: its "number", "width" and "height".
    """
    height = WIDTH * picture["height"] / picture["width"]
    own = [box for box in boxes if box.picture == picture["number"]]
    taken: list[Corners] = []
    moved: dict[int, Drawn] = {}
    for number in sorted(range(len(own)), key=lambda number: own[number].kind in QUIET):
        box = best = own[number]
        least = 2.0
        for other in _ways(box, height):
            covered = max((_share(_label(other), one) for one in taken), default=0.0)
            if covered < least:
                best, least = other, covered
            if least == 0.0:
                break
        moved[number] = best
        taken.append(_label(best))
    return [moved[number] for number in range(len(own))]


def _ways(box: Drawn, height: float) -> Iterable[Drawn]:
    """The box with its label where it is, along that edge, and at its other edges and corners."""
    left, top, wide, high = box.exact
    above, below = top - LINE * 2, top + high + LETTER
    width = _label(box)[2] - _label(box)[0]
    heights = sorted({above, below, top + LETTER, top + high - LINE * 2}, key=lambda y: abs(y - box.at[1]))
    yield box
    for y, right, move in product(heights, (box.right, not box.right), range(MOVES)):
        start = box.at[0] if right == box.right else left + wide if right else left
        x = start + width * move * (-1 if right else 1)
        if (x - width if right else x) >= 0 and (x if right else x + width) <= WIDTH:
            yield replace(box, at=(round(x, 2), round(min(max(y, LETTER), height - LINE), 2)), right=right)


def _label(box: Drawn) -> Corners:
    """Left, top, right and bottom of its letters, about."""
    (x, y), width = box.at, LETTER * WIDE * len(box.label) + LINE
    left = x - width if box.right else x
    return left, y - LETTER * 0.8, left + width, y + LINE


def _share(one: Corners, other: Corners) -> float:
    """How much of `one` lies under the other."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high) / ((one[2] - one[0]) * (one[3] - one[1]))


def _rounded(*values: float) -> tuple[float, float, float, float]:
    x, y, width, height = (round(value, 3) for value in values)
    return x, y, width, height
