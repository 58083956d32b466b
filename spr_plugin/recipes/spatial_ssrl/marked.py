"""The tasks of depth: regions are marked on the picture, and asked about."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from spr_plugin.data.made import PixelBox, plate_height
from spr_plugin.recipes.spatial_ssrl.samples import LETTERS, Refused, Sample, Scene, View
from spr_plugin.recipes.spatial_ssrl.settings import Asking

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
    regions = []
    for left, top in corners:
        inside = scene.depth[top : top + side, left : left + side]
        near, far = float(inside.min()), float(inside.max())  # NaN where one is unknown
        if far - near < RANGE:
            regions.append(Region((left, top, left + side, top + side), near, far))
    return regions


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
    # What is found first lies on what is largest, which is a ground behind all more often than not.
    rng.shuffle(regions)
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
    # Of θ in quarter turns: whole numbers, where floats would leave 6e-17.
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
    # The least and the greatest difference of any two of their pixels; right edges lie behind the last one.
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
    # As many words as the right one has: none stands out by its length.
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
