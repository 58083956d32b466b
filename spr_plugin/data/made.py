"""Pictures that are made of a file's by plain steps: cuts that are moved, turned and scaled, fills, marks.

A step is a tuple of a name, numbers and words, so that a record holds it and every process makes the same
pixels of it. Numbers are whole pixels, but for those of "seen"; boxes are xyxy.

    ("page", width, height, colour)                  an empty picture of that size, on which goes on
    ("cut", box of the file's picture, turn, box)    a part of the file's picture, turned, scaled to the box
    ("fill", box, colour)
    ("mark", box, letter)                            an outline, its letter on a plate beside it
    ("letter", box, letter)                          a letter that fills the box's height, black on white
    ("seen", width, height, (a, b, c, d, e, f, g, h))
        the file's picture from another side of the same lens: (x, y) shows what lies at
        (ax + by + c, dx + ey + f) / (gx + hy + 1)

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

PixelBox = tuple[int, int, int, int]
Step = tuple[Any, ...]

TURNS = {
    "": None,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside down": Image.Transpose.FLIP_TOP_BOTTOM,
    "left": Image.Transpose.ROTATE_90,
    "right": Image.Transpose.ROTATE_270,
}
# Drawn by ourselves: Pillow's own font differs among its versions. Five rows of three pixels a letter.
GLYPHS = {
    "1": "010 110 010 010 111",
    "2": "110 001 010 100 111",
    "3": "110 001 010 001 110",
    "A": "010 101 111 101 101",
    "B": "110 101 110 101 110",
    "C": "011 100 100 100 011",
    "D": "110 101 101 101 110",
}
MARKED = "#ff00ff"  # no colour of a photograph, nor of the tiny world


def steps_of(record: Iterable[Sequence[Any]]) -> tuple[Step, ...]:
    """Steps as JSON gives them back. ValueError, TypeError or KeyError for what is no step."""
    steps = tuple(
        (name, *(tuple(one) if isinstance(one, list) else one for one in given)) for name, *given in record
    )
    if unknown := {name for name, *_ in steps} - STEPS.keys():
        raise ValueError(f"no step {', '.join(sorted(map(str, unknown)))}")
    return steps


def make(picture: Image.Image, steps: Iterable[Step]) -> Image.Image:
    """What the steps make of a file's picture (RGB), which stays as it is."""
    # Steps draw on a copy: other queries show the picture as it is.
    made = picture.copy()
    for name, *given in steps:
        made = STEPS[name](picture, made, *given)
    return made


def _page(picture: Image.Image, made: Image.Image, width: int, height: int, colour: str) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def _cut(picture: Image.Image, made: Image.Image, taken: PixelBox, turn: str, box: PixelBox) -> Image.Image:
    piece = turned(picture.crop(taken), turn)
    size = (box[2] - box[0], box[3] - box[1])
    made.paste(piece if piece.size == size else piece.resize(size, Image.Resampling.BICUBIC), box[:2])
    return made


def turned(piece: Image.Image, turn: str) -> Image.Image:
    """The piece after a turn of TURNS; a quarter changes its sides."""
    transpose = TURNS[turn]
    return piece if transpose is None else piece.transpose(transpose)


def _seen(
    picture: Image.Image, made: Image.Image, width: int, height: int, numbers: tuple[float, ...]
) -> Image.Image:
    kind, filter = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
    return picture.transform((width, height), kind, numbers, filter)


def _fill(picture: Image.Image, made: Image.Image, box: PixelBox, colour: str) -> Image.Image:
    made.paste(colour, box)
    return made


def _letter(picture: Image.Image, made: Image.Image, box: PixelBox, letter: str) -> Image.Image:
    made.paste("white", box)
    glyph = Image.new("1", (3, 5))
    glyph.putdata([255 * (dot == "1") for dot in GLYPHS[letter].replace(" ", "")])
    # Five rows of a glyph and one free above and below; its width is three fifths.
    height = max(5, (box[3] - box[1]) * 5 // 7)
    glyph = glyph.resize((height * 3 // 5, height), Image.Resampling.NEAREST)
    left, top = (box[0] + box[2] - glyph.width) // 2, (box[1] + box[3] - glyph.height) // 2
    made.paste("black", (left, top), glyph)
    return made


def _mark(picture: Image.Image, made: Image.Image, box: PixelBox, letter: str) -> Image.Image:
    """The outline lies around the box, so that all of its pixels are seen; the plate lies above it where
    there is room, else below.
    """
    line = max(1, min(made.size) // 160)
    for edge in _edges(box, line):
        made.paste(MARKED, edge)
    high = plate_height(made.size)
    # As a glyph of five rows with a border is seven high, one of three is five wide.
    wide = high * 5 // 7
    # Pushed back onto the picture at its right and left edge.
    left = max(0, min(box[0] - line, made.width - wide))
    top = box[1] - line - high if box[1] - line - high >= 0 else box[3] + line
    return _letter(picture, made, (left, top, left + wide, top + high), letter)


def plate_height(size: tuple[int, int]) -> int:
    """Of the plate with a mark's letter, on a picture of this size, in pixels."""
    return max(7, min(size) // 20)


def _edges(box: PixelBox, line: int) -> list[PixelBox]:
    x1, y1, x2, y2 = box
    left, top, right, bottom = x1 - line, y1 - line, x2 + line, y2 + line
    return [(left, top, right, y1), (left, y2, right, bottom), (left, y1, x1, y2), (x2, y1, right, y2)]


STEPS: dict[str, Callable[..., Image.Image]] = {
    "page": _page,
    "cut": _cut,
    "fill": _fill,
    "mark": _mark,
    "letter": _letter,
    "seen": _seen,
}
