"""Boxes on pictures, for people: the report's, and what a look at held-out regions sends to a tracker."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from spr_plugin.recipes.base import Mark

SIDE = 360  # of a picture that is shown, in pixels
COLORS = {"region": "#888888", "truth": "#1f77ff", "chosen": "#12a150", "rejected": "#e5484d"}
WRITTEN = "written"  # kind of the marks that take the colour of their side, and a thick line


def drawn(image: Image.Image, marks: Sequence[Mark], side: str) -> Image.Image:
    """The picture, made small, with these marks on it; ``side`` names the colour of what an answer wrote."""
    factor = SIDE / max(image.size)
    image = image.resize([max(1, round(length * factor)) for length in image.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for mark in marks:
        written = mark.kind == WRITTEN
        colour = COLORS[side] if written else COLORS.get(mark.kind, COLORS["region"])
        x1, y1, x2, y2 = (value * factor for value in mark.xyxy)
        corners = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
        draw.rectangle(corners, outline=colour, width=3 if written else 1)
    return image
