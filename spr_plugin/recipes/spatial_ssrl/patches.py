"""The tasks of pixels: shuffled patches, a flipped one, a cropped one."""

from __future__ import annotations

import itertools
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spr_plugin.data.made import PixelBox, Step, make, plate_height, turned
from spr_plugin.recipes.spatial_ssrl.samples import LETTERS, Refused, Sample, Scene, View
from spr_plugin.recipes.spatial_ssrl.settings import Asking

COARSE = 8  # patches are compared at so many points a side, so that grain tells none from another


def grid_boxes(size: tuple[int, int], rows: int, columns: int) -> list[PixelBox]:
    """The boxes of equal patches, row by row; what is left over at the right and below belongs to none."""
    wide, high = size[0] // columns, size[1] // rows
    return [
        (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
        for row in range(rows)
        for column in range(columns)
    ]


def _coarse(piece: Image.Image) -> NDArray[np.float32]:
    small = piece.resize((COARSE, COARSE), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / np.float32(255)


def _alike(pieces: list[Image.Image], least: float) -> bool:
    """Whether two of them can hardly be told apart."""
    seen = [_coarse(piece) for piece in pieces]
    return any(np.abs(a - b).mean() < least for a, b in itertools.combinations(seen, 2))


def _page(boxes: list[PixelBox]) -> Step:
    return ("page", *boxes[-1][2:], "white")


def patch_order(scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """Place i shows the patch π(i) of the picture; the answer is π⁻¹, "0-2-3-1": for each place of the
    picture, in turn, the number of the shown patch that belongs there.
    """
    grid = rng.choice(ask.grids)
    rows, columns = map(int, grid.split("x"))
    boxes = grid_boxes(scene.picture.size, rows, columns)
    cells = list(range(len(boxes)))
    # Any order but the picture's own.
    shown = rng.choice([order for order in itertools.permutations(cells) if list(order) != cells])
    white = rng.choice(cells) if grid == "2x2" and rng.random() < ask.white else None
    # Of the white one nobody sees more than that it is white.
    pieces = {cell: scene.picture.crop(boxes[patch]) for cell, patch in enumerate(shown) if cell != white}
    plain = [Image.new("RGB", (COARSE, COARSE), "white")] if white is not None else []
    if _alike([*pieces.values(), *plain], ask.min_change):
        raise Refused("hardly_changed")
    steps: list[Step] = [("cut", boxes[patch], "", boxes[cell]) for cell, patch in enumerate(shown)]
    steps += [("fill", boxes[white], "white")] if white is not None else []
    # The inverse permutation: where each patch of the picture is shown.
    answer = [shown.index(cell) for cell in cells]
    hidden = " One of them is white." if white is not None else ""
    question = (
        f"A picture was cut into {rows} x {columns} patches, which were shuffled.{hidden} Those that you see"
        f" have the numbers 0 to {len(cells) - 1}, row by row. In which order, row by row, do they restore"
        " the picture? Join the numbers by hyphens."
    )
    why = ", ".join(f"{patch} belongs to place {cell}" for cell, patch in enumerate(answer))
    view = View(boxes[-1][2:], (_page(boxes), *steps))
    facts = {"grid": [rows, columns], "white": white}
    return Sample((view,), question, "-".join(map(str, answer)), f"Patch {why}.", facts)


def flipped_patch(scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """One of 2 x 2 patches is mirrored; the answer is its number and the direction, 0 for vertically."""
    boxes = grid_boxes(scene.picture.size, 2, 2)
    patch, direction = rng.randrange(4), rng.randrange(2)
    turn = ("upside down", "mirrored")[direction]
    piece = scene.picture.crop(boxes[patch])
    if _alike([piece, turned(piece, turn)], ask.min_change):
        raise Refused("hardly_changed")
    question = (
        "A picture was cut into 2 x 2 patches, with the numbers 0 to 3, row by row. One of them was mirrored,"
        " vertically (0) or horizontally (1). Which one, and how? Join its number and the direction by a"
        " hyphen."
    )
    whole = [("cut", box, turn if index == patch else "", box) for index, box in enumerate(boxes)]
    view = View(boxes[-1][2:], (_page(boxes), *whole))
    why = f"Patch {patch} does not fit its neighbours; it is {'mirrored' if direction else 'upside down'}."
    return Sample((view,), question, f"{patch}-{direction}", why, {"boxes": [list(box) for box in boxes]})


# --- a cropped patch


def cropped_patch(scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """A black square hides a part; of four pieces one is that part, the others are turned, or cut from less
    or more around it.
    """
    width, height = scene.picture.size
    # A square: turned by a quarter it is as wide and as high.
    side = min(width, height) // 2
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    square = (left, top, left + side, top + side)
    around = {share: _grown(square, share) for share in (-0.5, 0.25, 0.5)}
    wrong: list[tuple[PixelBox, str]] = [(square, "left"), (square, "right")]
    wrong += [(box, "") for box in around.values() if _inside(box, scene.picture.size)]
    pieces = [(square, ""), *rng.sample(wrong, 3)]
    true = _coarse(scene.picture.crop(square))
    for box, turn in pieces[1:]:
        other = make(scene.picture, [("page", side, side, "white"), ("cut", box, turn, (0, 0, side, side))])
        if np.abs(_coarse(other) - true).mean() < ask.min_change:
            raise Refused("hardly_changed")
    rng.shuffle(pieces)
    letter = LETTERS[pieces.index((square, ""))]
    views = _montage(scene, square, pieces) if ask.montage else _apart(scene, square, pieces)
    where = "of the pieces A to D below" if ask.montage else "of the pictures A to D, which follow,"
    question = (
        f"A black square hides a part of the {'upper' if ask.montage else 'first'} picture. Which {where} is"
        " the part that is hidden? Answer with its letter."
    )
    facts = {"square": list(square), "pieces": [[list(box), turn] for box, turn in pieces]}
    return Sample(views, question, letter, f"Only {letter} goes on at every edge of the square.", facts)


def _grown(square: PixelBox, share: float) -> PixelBox:
    """Around the same middle, each side longer by this share of it."""
    more = round((square[2] - square[0]) * share / 2)
    return (square[0] - more, square[1] - more, square[2] + more, square[3] + more)


def _inside(box: PixelBox, size: tuple[int, int]) -> bool:
    return min(box) >= 0 and box[2] <= size[0] and box[3] <= size[1]


def _apart(scene: Scene, square: PixelBox, pieces: list[tuple[PixelBox, str]]) -> tuple[View, ...]:
    side = square[2] - square[0]
    cuts = [
        View((side, side), (("page", side, side, "white"), ("cut", box, turn, (0, 0, side, side))))
        for box, turn in pieces
    ]
    return (View(scene.picture.size, (("fill", square, "black"),)), *cuts)


def _montage(scene: Scene, square: PixelBox, pieces: list[tuple[PixelBox, str]]) -> tuple[View, ...]:
    """The picture, below it the four pieces in a row, each with its letter above it."""
    width, height = scene.picture.size
    high, cell = plate_height(scene.picture.size) + 2, width // 4
    # Room of two pixels between neighbours; no piece is shown larger than it is.
    side = min(cell - 2, square[2] - square[0])
    steps: list[Step] = [
        ("page", width, height + high + side + 2, "white"),
        ("cut", (0, 0, width, height), "", (0, 0, width, height)),
        ("fill", square, "black"),
    ]
    for number, (box, turn) in enumerate(pieces):
        left = number * cell + (cell - side) // 2
        steps.append(("letter", (left, height + 1, left + side, height + high - 1), LETTERS[number]))
        steps.append(("cut", box, turn, (left, height + high, left + side, height + high + side)))
    return (View((width, height + high + side + 2), tuple(steps)),)
