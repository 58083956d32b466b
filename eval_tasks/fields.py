"""Readers of a record's fields: plain data in, plain data out, ValueError with the words that follow the field's value in a message."""

import math
from collections.abc import Sequence


def text(value: object) -> str:
    """Any id, phrase or name as text, not empty."""
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError("is no text")
    return str(value)


def texts(value: object) -> list[str]:
    """One or more texts."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is no list of texts")
    return [text(each) for each in value]


def texts_or_none(value: object) -> list[str]:
    """Any number of texts."""
    return texts(value) if value else []


def box(value: object) -> list[float]:
    """xyxy of some area; its corners may lie off the picture, as some published ones do."""
    try:
        corners = [float(each) for each in value]
    except (TypeError, ValueError, OverflowError):
        corners = []
    if len(corners) != 4 or not all(map(math.isfinite, corners)) or corners[2] <= corners[0] or corners[3] <= corners[1]:
        raise ValueError("is not left, top, right, bottom in pixels")
    return corners


def boxes(value: object) -> list[list[float]]:
    """One or more boxes."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is no list of boxes")
    return [box(each) for each in value]


def point(value: object) -> list[float]:
    """x, y in pixels."""
    try:
        found = [float(each) for each in value]
    except (TypeError, ValueError, OverflowError):
        found = []
    if len(found) != 2 or not all(map(math.isfinite, found)):
        raise ValueError("is not x, y in pixels")
    return found


def listed(**fields):
    """Reader of a list of records, one or more, of these fields."""

    def read(value: object) -> list[dict]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ValueError("is no list of records")
        return [{name: field(each[name]) for name, field in fields.items()} for each in value]

    return read
