"""What all releases share: records, their layouts' checks, boxes on the picture."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spr_plugin.boxes import finite
from spr_plugin.errors import UserError
from spr_plugin.loading import read_json
from spr_plugin.progress import say

# The same of releases whose questions are ours or whose split has no published size: file → what → published
# count
PUBLISHED_FILES = {
    "lvis_v1_val.json": {"images": 19809, "annotations": 244707},
    "region_descriptions.json": {"images": 108077, "regions": 5408689},
}
SMALLEST = 1.0  # px; a box with a shorter side is no object
Record = dict[str, Any]  # a row of a Parquet file


def check_file(name: str, **counts: int) -> None:
    """Name what of a release's file has another count than the published one."""
    for what, count in counts.items():
        if count != PUBLISHED_FILES[name][what]:
            say(f"{name}: {count} {what}; the published file has {PUBLISHED_FILES[name][what]}")


def refuse_lacking(source: Path, of: str, *names: str) -> None:
    """UserError where not all files of a release are there."""
    if lacking := [name for name in names if not (source / name).is_file()]:
        raise UserError(f"--from {source}: holds no {' and no '.join(lacking)} of {of}")


def json_of(file: Path) -> Any:
    """What a release's JSON file says; inside :func:`layout` it is read as if it were as it should be."""
    return read_json(file, str(file))


@contextlib.contextmanager
def layout(what: str):
    """Inside, records are read that other people wrote; one that is not as their layout has it is a
    UserError.
    """
    try:
        yield
    except KeyError as error:
        raise UserError(f"{what}, it lacks {error}") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{what} ({error})") from None


def by_id(rows: Iterable[tuple[int | str, object]], file: Path) -> dict:
    """The rows as a mapping. UserError for an id that stands for two things, of which one would be lost."""
    by_id = {}
    for id, value in rows:
        if by_id.setdefault(id, value) != value:
            raise UserError(f"{file}: id {id} stands there twice, with different contents")
    return by_id


def clipped(box: Iterable[float], width: int, height: int, skipped: Counter, of: str) -> list[float] | None:
    """xyxy kept on the picture, or None (counted) for one that lies outside or is under a pixel. UserError,
    which begins with `of`, for numbers that are none.
    """
    x1, y1, x2, y2 = corners = list(map(float, box))
    if not finite([*corners, width, height]):
        raise UserError(
            f"{of}: the box {corners} in a picture of {width} x {height} holds a number that is not finite"
        )
    inside = [
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    ]
    if inside[2] - inside[0] >= SMALLEST and inside[3] - inside[1] >= SMALLEST:
        return inside
    skipped["outside" if x2 > x1 + SMALLEST and y2 > y1 + SMALLEST else "too_small"] += 1
    return None


def xyxy(xywh: Iterable[float]) -> list[float]:
    x, y, width, height = map(float, xywh)
    return [x, y, x + width, y + height]
