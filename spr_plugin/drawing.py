"""Boxes on pictures, for people: in reports, and in what a look at held-out queries sends to a tracker."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from spr_plugin.recipes.base import Mark

SIDE = 360  # of a picture that is shown, in pixels
COLORS = {"truth": "#1f77ff", "detector": "#8a4fff", "chosen": "#12a150", "rejected": "#e5484d"}
OTHER = "#888888"  # of whatever else a recipe marks
WRITTEN = "written"  # kind of the marks that take the colour of their side, and a thick line
THICK, THIN = 3, 1  # a thin line on a thick one leaves both to be seen
Line = tuple[str, Sequence[float], int]  # colour, xyxy in pixels of the picture, width


def lines_of(marks: Sequence[Mark], side: str) -> list[Line]:
    """How marks are painted; ``side`` names the colour of what an answer wrote."""
    return [
        (COLORS[side], mark.xyxy, THICK)
        if mark.kind == WRITTEN
        else (COLORS.get(mark.kind, OTHER), mark.xyxy, THIN)
        for mark in marks
    ]


def overlay(marks: Sequence[Mark], side: str) -> list[dict]:
    """Marks as rectangles in pixels of their picture, for a drawing that lies over it: thick ones first, so
    that none hides another.
    """
    ordered = sorted(marks, key=lambda mark: mark.kind != WRITTEN)
    return [
        rectangle(side if mark.kind == WRITTEN else mark.kind, mark.xyxy, mark.picture) for mark in ordered
    ]


def rectangle(kind: str, xyxy: Sequence[float], picture: int = 0) -> dict:
    """A box of two corners, in whatever order, as a rectangle."""
    x1, y1, x2, y2 = xyxy
    left, top = round(min(x1, x2), 2), round(min(y1, y2), 2)
    sides = {"width": round(abs(x2 - x1), 2), "height": round(abs(y2 - y1), 2)}
    return {"kind": kind, "picture": picture, "x": left, "y": top, **sides}


def shrunk(image: Image.Image, side: int = SIDE) -> Image.Image:
    """The picture, its longer side now ``side``."""
    factor = side / max(image.size)
    return image.resize([max(1, round(length * factor)) for length in image.size], Image.Resampling.BICUBIC)


def drawn(image: Image.Image, boxes: Sequence[Line], side: int = SIDE) -> Image.Image:
    """The picture, its longer side now ``side``, with boxes on it, the thick ones below."""
    factor = side / max(image.size)
    image = shrunk(image, side)
    draw = ImageDraw.Draw(image)
    for colour, corners, width in sorted(boxes, key=lambda box: -box[2]):
        x1, y1, x2, y2 = (value * factor for value in corners)
        draw.rectangle([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], outline=colour, width=width)
    return image
