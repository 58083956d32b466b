"""Pictures that lie elsewhere than where the run found them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

MOST_PLACES = 8  # that are looked at


def places(path: str, folder: str | None) -> list[str]:
    """Where a picture may be, of which the first that is there counts: below `folder`, with as much of its
    logged path as may be, and where the log says.

    >>> places("/coco/train/7.jpg", "/mnt")
    ['/mnt/coco/train/7.jpg', '/mnt/train/7.jpg', '/mnt/7.jpg', '/coco/train/7.jpg']
    """
    return list(dict.fromkeys([*(_below(path, folder) if folder else ()), os.path.abspath(path)]))


def _below(path: str, folder: str) -> Iterator[str]:
    parts = [part for part in PurePath(path).parts if part not in ("..", os.sep)]
    for start in range(max(0, len(parts) - MOST_PLACES), len(parts)):
        yield os.path.abspath(os.path.join(folder, *parts[start:]))


def found(path: str, folder: str | None) -> str | None:
    """The place where a picture's file is, None where it is at none."""
    return next((place for place in places(path, folder) if os.path.isfile(place)), None)


def advice(path: str, folder: str | None) -> str:
    """Of a picture that is at no place: which were looked at, and what to do.

    >>> advice("/coco/7.jpg", None)
    'was looked for at /coco/7.jpg; name the folder of pictures with --images DIR'
    """
    named = f"; --images {folder} is not their folder, name another" if folder else ""
    named = named or "; name the folder of pictures with --images DIR"
    return f"was looked for at {', '.join(places(path, folder))}{named}"


def relocated(record: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The record of a query or a pair with its pictures where they are now; one that is nowhere keeps its
    logged path."""

    def now(picture: Any) -> Any:
        if isinstance(picture, str):
            return found(picture, folder) or picture
        return {**picture, "path": now(picture["path"])}

    return {**record, "pictures": [now(picture) for picture in record["pictures"]]}
