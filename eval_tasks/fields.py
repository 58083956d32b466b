"""Readers of a record's fields: plain data and the picture's (width, height) in, plain data out.

ValueError with the words that follow the field's value in a message.
"""

import math
from collections.abc import Sequence
from typing import Any

SMALLEST = 1.0  # px; less of a box on its picture is no object, and a box of numbers from 0 to 1 is one
BEYOND = 0.02  # of the picture's longer side: published boxes end a little off it

Size = tuple[int, int]


def flag(value: object, size: Size) -> bool:
    """True or false."""
    return bool(value)


def text(value: object, size: Size) -> str:
    """Any id, phrase or name as text, not empty."""
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError("is no text")
    return str(value)


def texts(value: object, size: Size) -> list[str]:
    """One or more texts."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is no list of texts")
    return [text(each, size) for each in value]


def texts_or_none(value: object, size: Size) -> list[str]:
    """Any number of texts."""
    return texts(value, size) if value else []


def box(value: Any, size: Size) -> list[float]:
    """xyxy in pixels of some area on the picture; corners may lie a little off it, as some published ones
    do.
    """
    try:
        corners = [float(each) for each in value]
    except (TypeError, ValueError, OverflowError):
        corners = []
    if (
        len(corners) != 4
        or not all(map(math.isfinite, corners))
        or corners[2] <= corners[0]
        or corners[3] <= corners[1]
    ):
        raise ValueError("is not left, top, right, bottom in pixels")
    beyond = BEYOND * max(size)
    if min(corners) < -beyond or any(corner > side + beyond for corner, side in zip(corners, size * 2)):
        raise ValueError("lies outside the picture")
    x1, y1, x2, y2 = (min(max(corner, 0.0), side) for corner, side in zip(corners, size * 2))
    if min(x2 - x1, y2 - y1) < SMALLEST or max(corners) <= SMALLEST:
        raise ValueError("covers less than a pixel of the picture: boxes are in pixels, not in 0-1")
    return corners


def boxes(value: object, size: Size) -> list[list[float]]:
    """One or more boxes."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is no list of boxes")
    return [box(each, size) for each in value]


def point(value: Any, size: Size) -> list[float]:
    """x, y in pixels, on the picture."""
    try:
        xy = [float(each) for each in value]
    except (TypeError, ValueError, OverflowError):
        xy = []
    if len(xy) != 2 or not all(map(math.isfinite, xy)):
        raise ValueError("is not x, y in pixels")
    if not all(0 <= each <= side for each, side in zip(xy, size)):
        raise ValueError("lies outside the picture")
    return xy


def listed(**fields):
    """Reader of a list of records, one or more, of these fields."""

    def read(value: object, size: Size) -> list[dict]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ValueError("is no list of records")
        return [{name: field(each[name], size) for name, field in fields.items()} for each in value]

    return read
