"""COLMAP's reconstructions, ``sparse/0/``: images and cameras, in files of text or binary ones.

Knows nothing of what they are for.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spr_plugin.boxes import finite

MODEL = Path("sparse", "0")
# COLMAP's camera models: number → (name, how many parameters, how many of them are focal lengths)
MODELS = dict(
    enumerate(
        [
            ("SIMPLE_PINHOLE", 3, 1),
            ("PINHOLE", 4, 2),
            ("SIMPLE_RADIAL", 4, 1),
            ("RADIAL", 5, 1),
            ("OPENCV", 8, 2),
            ("OPENCV_FISHEYE", 8, 2),
            ("FULL_OPENCV", 12, 2),
            ("FOV", 5, 2),
            ("SIMPLE_RADIAL_FISHEYE", 4, 1),
            ("RADIAL_FISHEYE", 5, 1),
            ("THIN_PRISM_FISHEYE", 12, 2),
        ]
    )
)


class BadModel(Exception):
    """A reconstruction is none."""


class Lens(NamedTuple):
    """How a camera projects, in pixels of its picture, (0, 0) being the corner of the first one."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


class Image(NamedTuple):
    """A picture as COLMAP knows it: x_camera = rotation of the quaternion (w, x, y, z) · x + shift."""

    name: str
    quaternion: Sequence[float]
    shift: Sequence[float]
    lens: Lens | None


def models(folder: str) -> Iterator[str]:
    """Names of the folders below this one that hold a reconstruction."""
    for parent, inner, _ in os.walk(folder):
        if any(Path(parent, MODEL, f"images.{ending}").is_file() for ending in ("bin", "txt")):
            # Nothing further down: os.walk goes into what is left in the list.
            inner.clear()
            yield os.path.relpath(parent, folder)
        inner.sort()


def read_model(folder: Path) -> list[Image]:
    """The images of a reconstruction by their names. BadModel where it is none.

    Files of text win over binary ones, as they are what somebody may have written.
    """
    model = folder / MODEL
    try:
        if (model / "images.txt").is_file():
            lenses, rows = _text_cameras(model / "cameras.txt"), list(_text_images(model / "images.txt"))
        else:
            lenses, rows = _binary_cameras(model / "cameras.bin"), list(_binary_images(model / "images.bin"))
    except (OSError, ValueError, struct.error, IndexError, KeyError):
        raise BadModel from None
    images = (Image(name, turn, shift, lenses.get(camera)) for name, turn, shift, camera in rows)
    return sorted(images, key=lambda image: image.name)


_Row = tuple[str, Sequence[float], Sequence[float], int]  # name, quaternion, shift, camera


def _lens(number: int, width: int, height: int, parameters: Sequence[float]) -> Lens:
    _, count, focals = MODELS[number]
    known = len(parameters) == count and finite(parameters)
    if not known or min(*parameters[:focals], width, height) <= 0:
        raise ValueError("no camera")
    # With one focal length, both are the first; the centre stands behind them.
    fx, fy = parameters[0], parameters[focals - 1]
    return Lens(fx, fy, parameters[focals], parameters[focals + 1], width, height)


def _text_rows(file: Path) -> list[list[str]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


def _text_cameras(file: Path) -> dict[int, Lens]:
    numbers = {name: number for number, (name, _, _) in MODELS.items()}
    return {
        int(id): _lens(numbers[model], int(width), int(height), list(map(float, given)))
        for id, model, width, height, *given in filter(None, _text_rows(file))
    }


def _text_images(file: Path) -> Iterator[_Row]:
    """Each stands on two lines, of which the second, its points, may be empty."""
    # Lines stay where they are empty, so that every second one begins a picture.
    for row in _text_rows(file)[::2]:
        numbers, name = list(map(float, row[1:8])), " ".join(row[9:])
        yield name, numbers[:4], numbers[4:], int(row[8])


class _Binary:
    """A file of numbers, little end first."""

    def __init__(self, file: Path):
        self._content, self._place = file.read_bytes(), 0

    def take(self, format: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{format}", self._content, self._place)
        self._place += struct.calcsize(f"<{format}")
        return values

    def name(self) -> str:
        end = self._content.index(b"\0", self._place)
        start, self._place = self._place, end + 1
        return self._content[start:end].decode("utf-8")

    def skip(self, count: int) -> None:
        self._place += count
        if self._place > len(self._content):
            raise ValueError("the file is cut short")


def _binary_cameras(file: Path) -> dict[int, Lens]:
    content, lenses = _Binary(file), {}
    for _ in range(content.take("Q")[0]):
        id, model, width, height = content.take("iiQQ")
        lenses[id] = _lens(model, width, height, content.take(f"{MODELS[model][1]}d"))
    return lenses


def _binary_images(file: Path) -> Iterator[_Row]:
    content = _Binary(file)
    for _ in range(content.take("Q")[0]):
        # An id, four numbers of the quaternion, three of the shift, the camera's id.
        _, *pose, camera = content.take("i7di")
        name, (points,) = content.name(), content.take("Q")
        # x, y and the point's id, of eight bytes each.
        content.skip(24 * points)
        yield name, pose[:4], pose[4:], camera
