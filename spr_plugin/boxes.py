"""Boxes that know their coordinate space, and IoU.

A box never travels without its space: every space is an affine map to the pixels of the original picture, so
converting is exact algebra and two boxes of different spaces cannot be compared by accident.

Knows nothing about model families, text or files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# COCO's names of a box's area in px², from and up to.
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}


@dataclass(frozen=True)
class Space:
    """A coordinate space of one picture: ``pixel = value * scale + offset`` on each axis.

    `width` and `height` are those of the *original* picture in pixels, whatever the space; `scale` and
    `offset` are (x, y). The constructors below are the spaces that model families and annotation files use.
    """

    name: str
    width: int
    height: int
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"a picture of {self.width} x {self.height} px has no coordinate space")

    @classmethod
    @functools.lru_cache(maxsize=256)
    def pixels(cls, width: int, height: int) -> Space:
        """Pixels of the original picture (COCO, RefCOCO)."""
        return cls("pixels", width, height)

    @classmethod
    @functools.lru_cache(maxsize=256)
    def normalized(cls, width: int, height: int) -> Space:
        """0-1 of the picture on each axis."""
        return cls("normalized", width, height, (width, height))

    @classmethod
    @functools.lru_cache(maxsize=256)
    def padded_square(cls, width: int, height: int) -> Space:
        """0-1 of the square that the picture is padded to, centred as LLaVA's ``expand2square`` does (whole
        pixels).
        """
        side = max(width, height)
        # The margin is rounded down and then negated: -(n // 2), where -n // 2 would round it up.
        return cls(
            "padded_square", width, height, (side, side), (-((side - width) // 2), -((side - height) // 2))
        )

    @classmethod
    @functools.lru_cache(maxsize=256)
    def grid(cls, width: int, height: int, bins: int) -> Space:
        """`bins` steps across the picture on each axis: pixel = value * width / bins."""
        return cls(f"grid{bins}", width, height, (width / bins, height / bins))

    @classmethod
    @functools.lru_cache(maxsize=256)
    def resized(cls, width: int, height: int, new_width: int, new_height: int) -> Space:
        """Pixels of the picture after an image processor made it `new_width` x `new_height`."""
        return cls("resized", width, height, (width / new_width, height / new_height))

    @classmethod
    def crop(cls, width: int, height: int, corners: Sequence[float]) -> Space:
        """Pixels of the crop (x1, y1, x2, y2) of a picture; 0, 0 is the crop's top left corner."""
        return cls("crop", width, height, (1.0, 1.0), (corners[0], corners[1]))

    def within(self, outer: Space) -> Space:
        """This space, whose "original picture" is really a part of another one, as a space of that other
        picture.

        `outer` says where the part lies: ``Space.normalized(cw, ch).within(Space.crop(w, h, corners))``.
        """
        scale = (self.scale[0] * outer.scale[0], self.scale[1] * outer.scale[1])
        offset = (
            self.offset[0] * outer.scale[0] + outer.offset[0],
            self.offset[1] * outer.scale[1] + outer.offset[1],
        )
        return Space(f"{self.name} in {outer.name}", outer.width, outer.height, scale, offset)

    def same_picture(self, other: Space) -> bool:
        """Whether both spaces belong to pictures of one size."""
        return (self.width, self.height) == (other.width, other.height)


@dataclass(frozen=True)
class Box:
    """A box (left, top, right, bottom) in the units of its `space`. Continuous: a box's width is ``x2 - x1``,
    no + 1.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    space: Space

    @classmethod
    def of(cls, corners: Iterable[float], space: Space) -> Box:
        """The box of four numbers (left, top, right, bottom)."""
        x1, y1, x2, y2 = corners
        return cls(x1, y1, x2, y2, space)

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The four numbers in the units of `space`."""
        return (self.x1, self.y1, self.x2, self.y2)

    @property
    def width(self) -> float:
        """In the units of `space`; negative for an inverted box."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """In the units of `space`; negative for an inverted box."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """In squared units of `space`; 0 for an inverted box."""
        return max(0.0, self.width) * max(0.0, self.height)

    def pixels(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2) in pixels of the original picture."""
        (sx, sy), (ox, oy) = self.space.scale, self.space.offset
        return (self.x1 * sx + ox, self.y1 * sy + oy, self.x2 * sx + ox, self.y2 * sy + oy)

    def to(self, space: Space) -> Box:
        """The same box in another space of the same picture. Raises ValueError for another picture's
        space.
        """
        # The constructors keep their spaces, so that `is` answers most of the time.
        if space is self.space or space == self.space:
            return self
        if not space.same_picture(self.space):
            raise ValueError(
                f"a box of a {self.space.width}x{self.space.height} picture has no place in a "
                f"{space.width}x{space.height} one"
            )
        # The way of `pixels` back.
        (sx, sy), (ox, oy) = space.scale, space.offset
        x1, y1, x2, y2 = self.pixels()
        return Box((x1 - ox) / sx, (y1 - oy) / sy, (x2 - ox) / sx, (y2 - oy) / sy, space)

    def clip(self) -> Box:
        """The part of the box that lies on the original picture, in the same space; of zero area if none
        does.
        """
        x1, y1, x2, y2 = self.pixels()
        width, height = float(self.space.width), float(self.space.height)
        # Most boxes: they keep their numbers to the last bit.
        if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
            return self
        inside = (
            min(max(x1, 0.0), width),
            min(max(y1, 0.0), height),
            min(max(x2, 0.0), width),
            min(max(y2, 0.0), height),
        )
        return Box(*inside, Space.pixels(self.space.width, self.space.height)).to(self.space)


def finite(values: Iterable[object]) -> bool:
    """Whether all of them are numbers, none of them NaN, infinite or too large for a float."""
    try:
        return all(isinstance(value, (int, float)) and isfinite(value) for value in values)
    except OverflowError:
        return False


def size_of(box: Box) -> str:
    """Which of SIZES a box has on the original picture, whatever its numbers: inverted, it has no area."""
    x1, y1, x2, y2 = box.pixels()
    area = max(0.0, x2 - x1) * max(0.0, y2 - y1)
    # Of those that do not begin above it the last, so that every area has one name, an infinite one too.
    return [name for name, (low, _) in SIZES.items() if not area < low][-1]


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1. Raises ValueError where the two boxes' spaces differ.

    Measured in the space's units: on a non-square picture a normalized box keeps its IoU, as both axes scale
    alike for intersection and union.
    """
    if a.space != b.space:
        raise ValueError(
            f"IoU of a box in {a.space.name} with one in {b.space.name}: convert one with .to() first"
        )
    return pair_iou(a.xyxy, b.xyxy)


def pair_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """:func:`iou_matrix` of two boxes, xyxy in one space; plain numbers are ten times faster than arrays of
    one row.
    """
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    overlap = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    # isfinite too: an infinite box passes the comparisons.
    proper = ax2 > ax1 and ay2 > ay1 and bx2 > bx1 and by2 > by1 and all(map(isfinite, (*a, *b)))
    return (
        float(overlap / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap)) if proper else 0.0
    )


def iou_matrix(a: ArrayLike, b: ArrayLike) -> Array:
    """IoU of every box of `a` (n, 4) with every box of `b` (m, 4), xyxy in one space, as (n, m) float64.

    Continuous coordinates (no + 1). A box that is inverted, empty or not finite has IoU 0 with everything.
    """
    a, b = _as_boxes(a), _as_boxes(b)
    # (n, 1) against (m,): a row for each box of `a`.
    width = np.minimum(a[:, None, 2], b[:, 2]) - np.maximum(a[:, None, 0], b[:, 0])
    height = np.minimum(a[:, None, 3], b[:, 3]) - np.maximum(a[:, None, 1], b[:, 1])
    overlap = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = _areas(a)[:, None] + _areas(b)[None, :] - overlap
    # Two empty boxes have no union: their 0 stays, and nothing is divided by it.
    ious: Array = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ious


def best_iou(a: ArrayLike, b: ArrayLike, block: int = 256) -> Array:
    """The largest IoU of each box of `a` (n, 4) with any of `b` (m, 4), as (n,); 0 where `b` is empty.

    The row maxima of `iou_matrix`, made in blocks of rows, since a detector may give thousands of boxes.
    """
    a = _as_boxes(a)
    blocks = [
        iou_matrix(a[start : start + block], b).max(axis=1, initial=0.0) for start in range(0, len(a), block)
    ]
    # concatenate takes no empty list.
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _as_boxes(boxes: ArrayLike) -> Array:
    """(n, 4) float64; rows that are no box (not finite, inverted) become the empty box at 0, which overlaps
    nothing.
    """
    # A copy: what is no box is emptied below, and the caller's array is not ours.
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    proper = np.isfinite(array).all(axis=1) & (array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])
    if not proper.all():
        array[~proper] = 0.0
    return array


def _areas(boxes: Array) -> Array:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
