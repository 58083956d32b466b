"""Scenes of the tiny world, painted and described exactly: coloured shapes on textured ground, with boxes.

Numpy alone; knows nothing about texts, models or files. In execution order:

    layout(seed, hardness) -> Scene -> render(scene) -> picture
                                    -> depth_map, graph, random_region, crop

Boxes are (x1, y1, x2, y2) floats in pixels of the picture they belong to.
"""

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np

SIZE = 96  # pixels, square
COLORS = {
    "red": (214, 44, 44),
    "green": (44, 168, 62),
    "blue": (48, 78, 214),
    "yellow": (236, 214, 52),
    "purple": (150, 60, 184),
    "orange": (240, 138, 36),
    "white": (240, 240, 240),
    "cyan": (64, 206, 214),
}
SHAPES = ("circle", "square", "triangle", "diamond", "ring", "cross")
CATEGORIES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
# Share of all scenes that belongs to each split; a scene's own hash decides, so splits cannot meet.
SPLITS = {"pretrain": 0.55, "sft": 0.15, "spr": 0.15, "val": 0.05, "test": 0.10}


def _setting(default, help):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Hardness:
    """What makes scenes hard, as in real pictures; the defaults are the world that the embedded weights were
    taught on.
    """

    distractors: int = _setting(
        2, "objects of a colour and shape that another one has, one more or less by chance; 0: none"
    )
    overlap: float = _setting(0.3, "share of the smaller of two boxes that the other may lie on")
    smallest: float = _setting(9.0, "width of the narrowest objects, in pixels")
    spread: float = _setting(3.2, "how many times as wide the widest are")

    def __post_init__(self):
        limits = {
            "distractors": (0, 6),
            "overlap": (0, 1),
            "smallest": (4, 24),
            "spread": (1, SIZE / 2 / self.smallest),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it goes from {low} to {high:.3g}")


@dataclass(frozen=True)
class Thing:
    """One drawn object: its colour, shape and full (unoccluded) box in pixels."""

    color: str
    shape: str
    box: tuple

    @property
    def name(self):
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Objects in drawing order (later ones lie on top) and the seed that made them."""

    seed: int
    things: tuple

    @property
    def key(self):
        """Hex hash of what the scene shows; the split is read from it."""
        content = [(t.color, t.shape, [round(v, 3) for v in t.box]) for t in self.things]
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()

    @property
    def split(self):
        position, edge = int(self.key[:8], 16) / 16**8, 0.0
        for name, share in SPLITS.items():
            edge += share
            if position < edge:
                return name
        return name


# ---------------------------------------------------------------------------------------- geometry


def area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(a, b):
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))


def union(a, b):
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))


def center(box):
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def inside(box, region):
    """Whether at least half of the box's area lies in the region."""
    return area(intersection(box, region)) >= 0.5 * area(box)


def gap(a, b):
    """(edge-to-edge distance, centre distance) of two boxes: what "nearest" is sorted by."""
    dx = max(0.0, a[0] - b[2], b[0] - a[2])
    dy = max(0.0, a[1] - b[3], b[1] - a[3])
    (ax, ay), (bx, by) = center(a), center(b)
    return (dx * dx + dy * dy, (ax - bx) ** 2 + (ay - by) ** 2)


def grow_region(boxes, start, more_than=4):
    """Union box grown from boxes[start] by its nearest boxes until it holds enough of them.

    Returns the region, or None where all boxes together do not hold more than `more_than`.
    """
    region, left = boxes[start], [b for i, b in enumerate(boxes) if i != start]
    while sum(inside(b, region) for b in boxes) <= more_than:
        if not left:
            return None
        nearest = min(left, key=lambda b: gap(region, b))
        left.remove(nearest)
        region = union(region, nearest)
    return region


def square_offset(width, height):
    """(side, dx, dy): the square that LLaVA pads a picture to, and where the picture lies in it."""
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


# ------------------------------------------------------------------------------------------ scenes


def layout(seed, hardness=Hardness()):
    """Scene of 8-12 objects: every seed gives the same scene on every machine.

    Hard parts, in small: shapes recur in other colours, one colour and shape comes two or three times
    and often a second one twice (as RefCOCO's pictures do), sizes differ by a factor of three, and
    boxes may overlap by three tenths of the smaller. `hardness` sets how much of it; an object that finds no
    room is left out.
    """
    rng = np.random.default_rng([17, seed])
    picks = list(rng.permutation(len(CATEGORIES))[: rng.integers(8, 13)])
    for place in range(hardness.distractors + 1 if hardness.distractors else 0):
        if place < hardness.distractors - 1 or rng.random() < 0.5:
            picks[-1 - place] = picks[(0, 0, 1)[place % 3]]
    things = []
    for pick in rng.permutation(picks):
        color, shape = CATEGORIES[pick].split()
        for _ in range(40):
            width, height = _sides(rng, hardness)
            x, y = rng.uniform(0, SIZE - width), rng.uniform(0, SIZE - height)
            box = tuple(float(round(v, 2)) for v in (x, y, x + width, y + height))
            if all(_may_lie_together(box, t.box, hardness.overlap) for t in things):
                things.append(Thing(color, shape, box))
                break
    return Scene(seed, tuple(things))


def _sides(rng, hardness):
    """Width and height of an object in pixels: widths are even on a logarithmic scale, heights differ from
    them by up to 1.3 times.
    """
    narrowest, widest = hardness.smallest, hardness.smallest * hardness.spread
    width = narrowest * hardness.spread ** rng.random()
    height = width * 1.3 ** rng.uniform(-1, 1)
    return width, min(max(30.0, widest), max(min(8.0, narrowest), height))


def _may_lie_together(a, b, overlap):
    return area(intersection(a, b)) <= overlap * min(area(a), area(b))


def scenes(split, count, seed=0, hardness=Hardness()):
    """Yields the first `count` scenes of a split, walking the seeds upward from `seed` million."""
    number = seed * 1_000_000
    while count > 0:
        scene = layout(number, hardness)
        number += 1
        if scene.split == split:
            count -= 1
            yield scene


def _shape_mask(shape, u, v):
    """Coverage of a shape at (u, v), its box being [-1, 1] squared; boolean array."""
    r = u * u + v * v
    if shape == "circle":
        return r <= 1
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 1
    if shape == "triangle":
        return (abs(v) <= 1) & (abs(u) <= (v + 1) / 2)
    if shape == "diamond":
        return abs(u) + abs(v) <= 1
    if shape == "ring":
        return (r <= 1) & (r >= 0.3)
    return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.33)


def _ground(rng):
    """Textured ground: a muted tone, soft blotches and grain; (SIZE, SIZE, 3) floats of 0-255."""
    tone = rng.uniform(50, 125) + rng.uniform(-18, 18, 3)
    cells = rng.uniform(-1, 1, (7, 7)).repeat(16, 0).repeat(16, 1)[:SIZE, :SIZE]
    blur = np.cumsum(np.pad(cells, ((8, 0), (0, 0)), "edge"), 0)
    blur = (blur[8:] - blur[:-8]) / 8
    blur = np.cumsum(np.pad(blur, ((0, 0), (8, 0)), "edge"), 1)
    blotches = (blur[:, 8:] - blur[:, :-8]) / 8
    return tone + 22 * blotches[..., None] + rng.normal(0, 6, (SIZE, SIZE, 1))


def render(scene):
    """Draws a scene.

    Returns the picture, (SIZE, SIZE, 3) uint8, and the owner map, (SIZE, SIZE) int: which object
    is seen at each pixel, -1 for ground.
    """
    rng = np.random.default_rng([23, scene.seed])
    picture, owner = _ground(rng), np.full((SIZE, SIZE), -1)
    for index, thing in enumerate(scene.things):
        x1, y1, x2, y2 = thing.box
        left, top, right, bottom = int(x1), int(y1), int(np.ceil(x2)), int(np.ceil(y2))
        # Three samples a pixel and axis: soft edges, so that a box's fraction of a pixel shows.
        xs = (np.arange(3 * left, 3 * right) + 0.5) / 3
        ys = (np.arange(3 * top, 3 * bottom) + 0.5) / 3
        u, v = (xs - x1) / (x2 - x1) * 2 - 1, (ys - y1) / (y2 - y1) * 2 - 1
        mask = _shape_mask(thing.shape, u[None, :], v[:, None])
        cover = mask.reshape(bottom - top, 3, right - left, 3).mean((1, 3))[..., None]
        color = np.array(COLORS[thing.color]) * rng.uniform(0.85, 1.05) + rng.normal(0, 5, 3)
        window = (slice(top, bottom), slice(left, right))
        grain = rng.normal(0, 4, (bottom - top, right - left, 1))
        picture[window] = (1 - cover) * picture[window] + cover * (color + grain)
        owner[window][cover[..., 0] > 0.5] = index
    return picture.clip(0, 255).astype(np.uint8), owner


def depth_map(scene):
    """(SIZE, SIZE) uint16, larger is farther: the ground is at 10,000, the first painted object at 9,000 and
    the last, which lies on top of all, at 1,000.
    """
    owner, steps = render(scene)[1], max(1, len(scene.things) - 1)
    depths = [9000 - 8000 * i // steps for i in range(len(scene.things))] + [10000]
    return np.array(depths, np.uint16)[owner]


def graph(scene):
    """{"objects": [{id, bbox}], "relationships": [{subject, predicate, object}]}: all that hold of two.

    "left of" and "above" where the boxes share no column or row, "in front of" where they overlap, "larger
    than" from 1.8 times the area. The other way round (right of, below, behind, smaller than) is not listed.
    """
    ids = [f"{thing.name}.{number}" for number, thing in enumerate(scene.things, 1)]
    objects = [{"id": id, "bbox": list(thing.box)} for id, thing in zip(ids, scene.things)]
    relationships = [
        {"subject": ids[i], "predicate": predicate, "object": ids[j]}
        for i, a in enumerate(scene.things)
        for j, b in enumerate(scene.things)
        for predicate in _predicates(a.box, b.box, above=i > j)
        if i != j
    ]
    return {"objects": objects, "relationships": relationships}


def _predicates(a, b, above):
    holds = {
        "left of": a[2] <= b[0],
        "above": a[3] <= b[1],
        "in front of": above and area(intersection(a, b)) > 0,
        "larger than": area(a) >= 1.8 * area(b),
    }
    return [predicate for predicate, true in holds.items() if true]


def crop(region, things):
    """Cuts a region out, as a model sees it: whole pixels, padded to a square.

    Returns the region in whole pixels, the things that lie in it with their boxes clipped and moved
    to the padded square, and the square's side.
    """
    region = (int(region[0]), int(region[1]), int(np.ceil(region[2])), int(np.ceil(region[3])))
    side, dx, dy = square_offset(region[2] - region[0], region[3] - region[1])
    shift = (dx - region[0], dy - region[1], dx - region[0], dy - region[1])
    moved = []
    for thing in things:
        if inside(thing.box, region):
            box = tuple(v + s for v, s in zip(intersection(thing.box, region), shift))
            moved.append(Thing(thing.color, thing.shape, box))
    return region, moved, side


def random_region(scene, rng):
    """(region box, its objects): grown around a random object to hold 2-8 objects."""
    boxes = [t.box for t in scene.things]
    more_than = int(rng.choice([1, 2, 3, 4, 4, 4, 5, 6, 7]))
    region = grow_region(boxes, int(rng.integers(len(boxes))), more_than)
    region = region or boxes[0]
    return region, [t for t in scene.things if inside(t.box, region)]
