"""The picture that everything is tried on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.recipes.spr.regions import RegionQuery, region_query

LONG = "a red square beside a cup " * 30  # more than text towers read
OBJECTS = {
    "red square": (4, 4, 24, 20),
    "blue square": (30, 6, 50, 22),
    "cup": (8, 26, 28, 44),
    "green square": (36, 28, 60, 46),
}


@contextlib.contextmanager
def made_up() -> Iterator[tuple[Image.Image, list[RegionQuery]]]:
    """A picture of 64 x 48 pixels, also as a file, and two regions of it, of two objects and of one."""
    picture, space = Image.new("RGB", (64, 48), "white"), Space.pixels(64, 48)
    for label, corners in OBJECTS.items():
        ImageDraw.Draw(picture).rectangle(corners, fill=label.split()[0] if " " in label else "gray")
    boxes = [
        Annotation(index, label, Box.of(map(float, corners), space))
        for index, (label, corners) in enumerate(OBJECTS.items())
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "made-up.png")
        picture.save(path)
        image = AnnotatedImage("made-up", path, *picture.size, tuple(boxes))
        regions = Box(0.0, 0.0, 52.0, 24.0, space), Box(6.0, 24.0, 30.0, 46.0, space)
        yield picture, [region_query(image, region, seed) for seed, region in enumerate(regions)]
