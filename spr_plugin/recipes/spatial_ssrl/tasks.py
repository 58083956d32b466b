"""The five tasks: a picture, perhaps with its depth, and a random generator → a sample, or why there is none.

    patch_order      shuffled patches: in which order do they restore the picture?
    flipped_patch    which patch is mirrored, and how?
    cropped_patch    which of four pieces is the one that was cut out?
    depth_order      three marked regions from near to far
    position         from one marked region, facing somewhere: where is the other?

A sample is what is shown (steps on the picture), a question and its answer. Each is checked before it is
given: the answer, applied, restores the picture, or holds on every pixel of the regions that it speaks of.
Pixels are uint8 RGB (height, width, 3), depth is 0 (near) to 1 (far), NaN where nobody knows.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spr_plugin.data.depth import Depth
from spr_plugin.data.made import PixelBox, Step, make, plate_height, turned
from spr_plugin.recipes.spatial_ssrl.settings import Asking

COARSE = 8  # patches are compared at so many points a side, so that grain tells none from another
LETTERS = "ABCD"
RANGE, GAP = 0.15, 0.05  # of depth: within a region less than, between two more than
APART = 0.25  # of depth, from which on one lies before the other
TRIES = 64  # places that are looked at for regions
# facing → θ in quarter turns, its share where the paper's code draws them; its text draws all alike
FACINGS = {"left": (1, 0.3), "right": (3, 0.3), "camera": (2, 0.3), "away": (0, 0.1)}
TOWARDS = {
    "left": "to the left of the picture",
    "right": "to the right of the picture",
    "camera": "towards the camera",
    "away": "away from the camera",
}


class Refused(Exception):
    """No sample can be made; the word is the reason, under which it is counted."""


@dataclass(frozen=True)
class View:
    """A picture that is shown: its size in pixels, and the steps that make it of the file's."""

    size: tuple[int, int]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Sample:
    """One question.

    Attributes:
        views: what is shown, in this order.
        answer: what stands in the box of a right answer.
        why: a sentence of reasoning that leads to it.
        facts: plain data by which the answer can be checked and drawn.
    """

    views: tuple[View, ...]
    question: str
    answer: str
    why: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Scene(NamedTuple):
    """What samples are made of."""

    picture: Image.Image
    depth: Depth | None = None


# --- patches


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
    places = list(range(len(boxes)))
    shown = rng.choice([order for order in itertools.permutations(places) if list(order) != places])
    white = rng.choice(places) if grid == "2x2" and rng.random() < ask.white else None
    pieces = {place: scene.picture.crop(boxes[patch]) for place, patch in enumerate(shown) if place != white}
    plain = [Image.new("RGB", (COARSE, COARSE), "white")] if white is not None else []
    if _alike([*pieces.values(), *plain], ask.min_change):
        raise Refused("hardly_changed")
    steps: list[Step] = [("cut", boxes[patch], "", boxes[place]) for place, patch in enumerate(shown)]
    steps += [("fill", boxes[white], "white")] if white is not None else []
    answer = [shown.index(place) for place in places]
    hidden = " One of them is white." if white is not None else ""
    question = (
        f"A picture was cut into {rows} x {columns} patches, which were shuffled.{hidden} Those that you see"
        f" have the numbers 0 to {len(places) - 1}, row by row. In which order, row by row, do they restore"
        " the picture? Join the numbers by hyphens."
    )
    why = ", ".join(f"{patch} belongs to place {place}" for place, patch in enumerate(answer))
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
    whole = [("cut", box, turn if place == patch else "", box) for place, box in enumerate(boxes)]
    view = View(boxes[-1][2:], (_page(boxes), *whole))
    why = f"Patch {patch} does not fit its neighbours; it is {'mirrored' if direction else 'upside down'}."
    return Sample((view,), question, f"{patch}-{direction}", why, {"boxes": [list(box) for box in boxes]})


# --- a cropped patch


def cropped_patch(scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """A black square hides a part; of four pieces one is that part, the others are turned, or cut from less
    or more around it.
    """
    width, height = scene.picture.size
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


# --- depth


@dataclass(frozen=True)
class Region:
    """A square of the picture with the least and the greatest depth of its pixels."""

    box: PixelBox
    near: float
    far: float


def _regions(scene: Scene, rng: random.Random) -> list[Region]:
    """Places for marks, in random order: their depth is known and nearly the same everywhere."""
    if scene.depth is None:
        raise Refused("missing_depth")
    height, width = scene.depth.shape
    side = max(4, min(height, width) // 16)
    corners = [(rng.randint(0, width - side), rng.randint(0, height - side)) for _ in range(TRIES)]
    found = []
    for left, top in corners:
        inside = scene.depth[top : top + side, left : left + side]
        near, far = float(inside.min()), float(inside.max())  # NaN where one is unknown
        if far - near < RANGE:
            found.append(Region((left, top, left + side, top + side), near, far))
    return found


def _touch(a: PixelBox, b: PixelBox, room: int) -> bool:
    """Whether two marks would lie on each other, plates and all."""
    return a[0] < b[2] + room and b[0] < a[2] + room and a[1] < b[3] + room and b[1] < a[3] + room


def _marked(scene: Scene, regions: list[Region]) -> View:
    marks = [("mark", region.box, str(number)) for number, region in enumerate(regions, 1)]
    return View(scene.picture.size, tuple(marks))


def depth_order(scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """Three regions, whose depths leave a gap between each two; the answer names them from near to far."""
    regions: list[Region] = []
    room = 2 * plate_height(scene.picture.size)
    for one in _regions(scene, rng):
        gaps = [max(one.near - other.far, other.near - one.far) for other in regions]
        if min(gaps, default=1) > GAP and not any(_touch(one.box, other.box, room) for other in regions):
            regions.append(one)
        if len(regions) == 3:
            break
    else:
        raise Refused("no_three_depths")
    order = sorted(range(3), key=lambda number: regions[number].near)
    answer = "-".join(str(number + 1) for number in order)
    question = (
        "Three regions are marked with 1, 2 and 3. Order them from the nearest to the camera to the farthest."
        " Join the numbers by hyphens."
    )
    near, middle, far = answer.split("-")
    why = f"{near} is nearer than {middle}, and {middle} is nearer than {far}."
    facts = {"regions": [list(region.box) for region in regions]}
    return Sample((_marked(scene, regions),), question, answer, why, facts)


# --- position


def sides(facing: str, x: int, z: int) -> tuple[int, int]:
    """(1 right or -1 left, 1 in front or -1 behind), 0 for neither, of somebody who faces there.

    Args:
        x: 1 where the other lies to the right in the picture, -1 to the left.
        z: 1 where it is farther from the camera, -1 nearer.
    """
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[FACINGS[facing][0]]
    return cos * x + sin * z, -sin * x + cos * z


def told(right: int, front: int) -> str:
    """In words: "in front and to the right"."""
    words = [("", "in front", "behind")[front], ("", "to the right", "to the left")[right]]
    return " and ".join(filter(None, words))


def _sign(least: float, most: float, threshold: float) -> int | None:
    """The sign of what lies between, 0 where all of it is below the threshold, None where some is."""
    if least >= threshold or most <= -threshold:
        return 1 if least > 0 else -1
    return 0 if max(abs(least), abs(most)) < threshold else None


def position_signs(first: Region, second: Region, distance: float) -> tuple[int, int] | None:
    """(x, z) of the second as seen from the first, see `sides`; None where not all pixels agree."""
    a, b = first.box, second.box
    x = _sign(b[0] - (a[2] - 1), (b[2] - 1) - a[0], distance)
    z = _sign(second.near - first.far, second.far - first.near, APART)
    return None if x is None or z is None or x == z == 0 else (x, z)


def distance_of(size: tuple[int, int], ask: Asking) -> float:
    """Pixels from which on one region lies beside another."""
    return 150 if ask.distance == "text" else min(size) / 8


def position(scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """Two marked regions, and where somebody at the first one looks; the answer is a letter of four."""
    regions = _regions(scene, rng)
    distance = distance_of(scene.picture.size, ask)
    room = 2 * plate_height(scene.picture.size)
    signs = None
    for first, second in itertools.permutations(regions, 2):
        signs = position_signs(first, second, distance)
        if signs and not _touch(first.box, second.box, room):
            break
    else:
        raise Refused("no_clear_position")
    shares = {facing: by_code if ask.facings == "code" else 1 for facing, (_, by_code) in FACINGS.items()}
    (facing,) = rng.choices(list(shares), list(shares.values()))
    right, front = sides(facing, *signs)
    ways = [(r, f) for r in (-1, 0, 1) for f in (-1, 0, 1) if abs(r) + abs(f) == abs(right) + abs(front)]
    rng.shuffle(ways)
    options = [told(*way) for way in ways]
    answer = LETTERS[options.index(told(right, front))]
    listed = "; ".join(f"{letter}: {option}" for letter, option in zip(LETTERS, options))
    question = (
        f"You stand at the region marked 1 and look {TOWARDS[facing]}. Where is the region marked 2?"
        f" {listed}. Answer with the letter."
    )
    why = f"Looking {TOWARDS[facing]} from 1, 2 is {told(right, front)}, which is {answer}."
    facts = {"regions": [list(one.box) for one in (first, second)], "facing": facing, "options": options}
    return Sample((_marked(scene, [first, second]),), question, answer, why, facts)


MAKERS: dict[str, Callable[[Scene, Asking, random.Random], Sample]] = {
    one.__name__: one for one in (patch_order, flipped_patch, cropped_patch, depth_order, position)
}
