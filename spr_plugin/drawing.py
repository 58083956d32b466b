"""Boxes on pictures, for people: in reports, and in what a look at held-out queries sends to a tracker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from spr_plugin.recipes.base import Mark

SIDE = 360  # of a picture that is shown, in pixels
COLORS = {"truth": "#1f77ff", "chosen": "#12a150", "rejected": "#e5484d"}
OTHER = "#888888"  # of whatever else a recipe marks
WRITTEN = "written"  # kind of the marks that take the colour of their side, and a thick line
Line = tuple[str, Sequence[float], int]  # colour, xyxy in pixels of the picture, width


def lines_of(marks: Sequence[Mark], side: str) -> list[Line]:
    """How marks are drawn; ``side`` names the colour of what an answer wrote."""
    return [
        (COLORS[side], mark.xyxy, 3) if mark.kind == WRITTEN else (COLORS.get(mark.kind, OTHER), mark.xyxy, 1)
        for mark in marks
    ]


def legend_of(kinds: Iterable[str]) -> dict[str, str]:
    """Kind → colour of marks that are no answer's."""
    return {kind: COLORS.get(kind, OTHER) for kind in sorted({*kinds} - {WRITTEN})}


def drawn(image: Image.Image, boxes: Sequence[Line], side: int = SIDE) -> Image.Image:
    """The picture, its longer side now ``side``, with boxes on it."""
    factor = side / max(image.size)
    image = image.resize([max(1, round(length * factor)) for length in image.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for colour, corners, width in boxes:
        x1, y1, x2, y2 = (value * factor for value in corners)
        draw.rectangle([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], outline=colour, width=width)
    return image
