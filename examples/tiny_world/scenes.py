"""Procedural scenes of the tiny world: coloured shapes on textured ground, with texts and boxes.

Numpy and Pillow only; knows nothing about models or tokenizers. In execution order:

    layout(seed, hardness) -> Scene -> render(scene) -> picture
                          -> grow_region / conversation / clip_text -> what a model is taught
    write_world(OUT) -> images, LLaVA JSON, COCO JSON, REC rows

Boxes are (x1, y1, x2, y2) floats in pixels of the picture they belong to; texts hold boxes as
LLaVA writes them, `[0.28, 0.34, 0.4, 0.71]`, in 0-1 of the square picture.

    python examples/tiny_world/scenes.py OUT [--sft N --spr N --val N --test N --seed S --distractors N ...]
"""

import argparse
import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 96  # pixels, square
NOISE = 0.12  # of a box's side, on each edge, in instruction data: in what the shipped model was taught last
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

REC = "Please provide the bounding box coordinate of the region this sentence describes: {name}."
REG = "Please provide a short description for this region: {box}."
DESCRIBE = "Describe the objects in the region {box} with their bounding boxes."
DESCRIBE_CROP = "Describe the objects in the image with their bounding boxes."
DESCRIBE_REFERENCE = (
    "The region {box} contains {objects}. Describe the objects in the region with their bounding boxes."
)
PRESENCE = "Is there {name} in the image?"
COLOR = "What is the color of the {shape}?"
TEMPLATES = (REC, REG, DESCRIBE, DESCRIBE_CROP, DESCRIBE_REFERENCE, PRESENCE, COLOR)
QUALIFIERS = ("left", "right", "small", "large")


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


# ------------------------------------------------------------------------------------------- texts


def number(value):
    """A 0-1 coordinate as LLaVA writes it: two decimals, trailing zeros dropped."""
    return str(round(min(1.0, max(0.0, float(value))), 2))


def box_text(box, width=SIZE, height=SIZE):
    x1, y1, x2, y2 = box
    numbers = (x1 / width, y1 / height, x2 / width, y2 / height)
    return "[" + ", ".join(map(number, numbers)) + "]"


def coarse(box, noise, rng, width=SIZE, height=SIZE):
    """The box with Gaussian noise on each edge, `noise` times the side it moves along."""
    if not noise:
        return box
    w, h = box[2] - box[0], box[3] - box[1]
    x1, y1, x2, y2 = np.array(box) + rng.normal(0, noise, 4) * (w, h, w, h)
    return (max(0, x1), max(0, y1), min(width, x2), min(height, y2))


def with_article(name):
    return ("an " if name[0] in "aeiou" else "a ") + name


def enumeration(parts):
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def clip_text(things):
    """What the picture shows, without boxes: 'a red circle, a blue square and a green ring.'"""
    return enumeration([with_article(t.name) for t in things]) + "."


def expressions(things):
    """(expression, index) for every object that one expression tells apart from all others."""
    by_name = {}
    for index, thing in enumerate(things):
        by_name.setdefault(thing.name, []).append(index)
    found = []
    for name, group in by_name.items():
        if len(group) == 1:
            found.append((name, group[0]))
        else:
            found += [(f"{word} {name}", index) for word, index in _outstanding(things, group)]
    return found


def is_qualified(expression):
    return expression.split()[0] in QUALIFIERS


def _outstanding(things, group):
    """(qualifier, index) of those in a group that are clearly its leftmost, rightmost, smallest or
    largest.
    """
    by_x = sorted((center(things[i].box)[0], i) for i in group)
    by_area = sorted((area(things[i].box), i) for i in group)
    apart, larger = 0.12 * SIZE, 1.8
    found = [
        ("left", by_x[0][1], by_x[1][0] - by_x[0][0] >= apart),
        ("right", by_x[-1][1], by_x[-1][0] - by_x[-2][0] >= apart),
        ("small", by_area[0][1], by_area[1][0] >= larger * by_area[0][0]),
        ("large", by_area[-1][1], by_area[-1][0] >= larger * by_area[-2][0]),
    ]
    return [(word, index) for word, index, clear in found if clear]


def left_to_right(things):
    """The order of every description: a model can then find what comes next, and where to stop."""
    return sorted(things, key=lambda t: t.box[0])


def random_region(scene, rng):
    """(region box, its objects): grown around a random object to hold 2-8 objects."""
    boxes = [t.box for t in scene.things]
    more_than = int(rng.choice([1, 2, 3, 4, 4, 4, 5, 6, 7]))
    region = grow_region(boxes, int(rng.integers(len(boxes))), more_than)
    region = region or boxes[0]
    return region, [t for t in scene.things if inside(t.box, region)]


def grounded_text(things, noise, rng, width=SIZE, height=SIZE):
    """'a red circle [..], a blue square [..] and a green ring [..].'"""
    parts = []
    for thing in things:
        box = coarse(thing.box, noise, rng, width, height)
        parts.append(f"{with_article(thing.name)} {box_text(box, width, height)}")
    return enumeration(parts) + "."


def ask_rec(scene, rng, noise):
    found = expressions(scene.things)
    if not found:  # nothing but twins that no word tells apart
        return ask_reg(scene, rng, noise)
    hard = [e for e in found if is_qualified(e[0])]
    pool = hard if hard and rng.random() < 0.3 else found
    name, index = pool[rng.integers(len(pool))]
    return REC.format(name=name), box_text(coarse(scene.things[index].box, noise, rng))


def ask_reg(scene, rng, noise):
    thing = scene.things[rng.integers(len(scene.things))]
    return REG.format(box=box_text(coarse(thing.box, noise, rng))), thing.name + "."


def ask_region(scene, rng, noise):
    region, things = random_region(scene, rng)
    answer = grounded_text(left_to_right(things), noise, rng)
    return DESCRIBE.format(box=box_text(region)), answer


def ask_reference(scene, rng, noise):
    region, things = random_region(scene, rng)
    listed = ", ".join(f"{with_article(t.name)} {box_text(t.box)}" for t in left_to_right(things))
    question = DESCRIBE_REFERENCE.format(box=box_text(region), objects=listed)
    return question, grounded_text(left_to_right(things), noise, rng)


def claim(scene, rng):
    """(name, whether it is there), half of each."""
    present = {t.name for t in scene.things}
    if rng.random() < 0.5:
        return sorted(present)[rng.integers(len(present))], True
    absent = [c for c in CATEGORIES if c not in present]
    if rng.random() < 0.5:
        # Only colours and shapes that are there, wrongly combined: the answer cannot be guessed.
        colors, shapes = {t.color for t in scene.things}, {t.shape for t in scene.things}
        absent = [c for c in absent if c.split()[0] in colors and c.split()[1] in shapes] or absent
    return absent[rng.integers(len(absent))], False


def ask_presence(scene, rng, noise):
    name, there = claim(scene, rng)
    return PRESENCE.format(name=with_article(name)), "Yes." if there else "No."


def ask_color(scene, rng, noise):
    by_shape = {s: [t for t in scene.things if t.shape == s] for s in SHAPES}
    single = [group[0] for group in by_shape.values() if len(group) == 1]
    if not single:
        return ask_presence(scene, rng, noise)
    thing = single[rng.integers(len(single))]
    return COLOR.format(shape=thing.shape), thing.color + "."


def asks_color(question):
    """Whether `ask_color` found a shape that comes once to ask about."""
    return question.startswith(COLOR.split("{")[0])


def as_conversation(turns):
    """LLaVA's list of {from, value}; the picture goes before the first question."""
    turns = [(f"<image>\n{q}" if i == 0 else q, a) for i, (q, a) in enumerate(turns)]
    return [
        {"from": who, "value": text}
        for question, answer in turns
        for who, text in (("human", question), ("gpt", answer))
    ]


ASKERS = (ask_rec, ask_reg, ask_region, ask_reference, ask_presence, ask_color)
ASKER_SHARES = (0.34, 0.08, 0.30, 0.08, 0.13, 0.07)


def conversation(scene, rng, noise, turns=6):
    """A conversation of several questions about one scene; boxes of the answers are coarse."""
    picks = rng.choice(len(ASKERS), turns, p=ASKER_SHARES)
    return as_conversation([ASKERS[i](scene, rng, noise) for i in picks])


def crop_conversation(scene, rng, noise):
    """(region, conversation) for the picture cut to that region, boxes in the crop's own space."""
    region, things, side = crop(random_region(scene, rng)[0], scene.things)
    answer = grounded_text(left_to_right(things), noise, rng, side, side)
    return region, as_conversation([(DESCRIBE_CROP, answer)])


# ------------------------------------------------------------------------------------------- files


def write_sft(out, count, seed, noise, hardness):
    """OUT/sft.json: one conversation a scene, every fifth with a crop of its picture as well."""
    rng, records = np.random.default_rng([31, seed]), []
    for index, scene in enumerate(scenes("sft", count, seed, hardness)):
        picture = Image.fromarray(render(scene)[0])
        name = f"sft/{index:06d}"
        picture.save(out / "images" / f"{name}.png")
        records.append(_record(name, conversation(scene, rng, noise)))
        if index % 5 == 0:
            region, turns = crop_conversation(scene, rng, noise)
            picture.crop(region).save(out / "images" / f"{name}_crop.png")
            records.append(_record(f"{name}_crop", turns))
    (out / "sft.json").write_text(json.dumps(records))


def _record(name, turns):
    return {"id": name.replace("/", "_"), "image": f"{name}.png", "conversations": turns}


def write_coco(out, split, count, seed, name=None, noise=0.0, hardness=Hardness()):
    """OUT/<name, or split>.json in COCO's format, boxes with `noise`; file names relative to OUT/images."""
    rng, images, annotations = np.random.default_rng([43, seed]), [], []
    for image_id, scene in enumerate(scenes(split, count, seed, hardness), 1):
        file = f"{split}/{image_id - 1:06d}.png"
        Image.fromarray(render(scene)[0]).save(out / "images" / file)
        images.append({"id": image_id, "file_name": file, "width": SIZE, "height": SIZE})
        for thing in scene.things:
            x1, y1, x2, y2 = (round(float(v), 2) for v in coarse(thing.box, noise, rng))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORIES.index(thing.name) + 1,
                    "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                    "area": round(area((x1, y1, x2, y2)), 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CATEGORIES, 1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (out / f"{name or split}.json").write_text(json.dumps(data))


def asked_expressions(scene, rng, most=7):
    """[(expression, index)]: up to `most` about one scene, as many as RefCOCO asks on average.

    As there, objects have others of their kind around them: those that only a word tells apart come first.
    """
    found = expressions(scene.things)
    shuffled = [found[i] for i in rng.permutation(len(found))]
    return sorted(shuffled, key=lambda e: not is_qualified(e[0]))[:most]


def phrase_fields(scene, id):
    """All names that mean one object, with its box."""
    phrases = [
        {"id": f"{id}-{index}", "phrase": with_article(name), "boxes": [list(scene.things[index].box)]}
        for name, index in expressions(scene.things)
        if not is_qualified(name)
    ]
    return {"caption": enumeration([phrase["phrase"] for phrase in phrases]) + ".", "phrases": phrases}


def asked_in_a_word(scene, ask, rng, count):
    """Up to `count` different (question, answer) of one kind."""
    return list(dict.fromkeys(ask(scene, rng, 0) for _ in range(count)))


def task_rows(scene, index, rng, other):
    """Task → rows about one scene, without the fields that all of them share."""
    rec = [
        {"id": f"{index}-{number}", "expression": expression, "bbox": list(scene.things[meant].box)}
        for number, (expression, meant) in enumerate(asked_expressions(scene, rng))
    ]
    rows = {"refcoco": rec}
    if index % 2 == 0 and (asked := phrase_fields(scene, index))["phrases"]:
        rows["phrases"] = [{"id": str(index), **asked}]
    for kind, ask, count in (("presence", ask_presence, 4), ("color", ask_color, 2)):
        asked = asked_in_a_word(scene, ask, other, count)
        rows[kind] = [
            {"id": f"{index}-{number}", "question": question, "answer": answer}
            for number, (question, answer) in enumerate(asked)
            if kind == "presence" or asks_color(question)
        ]
    return rows


def write_tasks(out, split, count, seed, hardness=Hardness()):
    """What lmms-eval's tiny-world tasks ask about a split's scenes.

    OUT/refcoco/{val,testA,testB}.jsonl: up to seven expressions a scene, scenes 3 : 1 : 1;
    OUT/phrases/val.jsonl: every second scene; OUT/{presence,color}/val.jsonl: up to four and two questions
    about a scene, answered in a word.
    """
    rng, other = np.random.default_rng([37, seed]), np.random.default_rng([41, seed])
    bounds = {"val": count * 3 // 5, "testA": count * 4 // 5, "testB": count}
    rows = {f"refcoco/{name}": [] for name in bounds}
    rows |= {f"{name}/val": [] for name in ("phrases", "presence", "color")}
    for index, scene in enumerate(scenes(split, count, seed, hardness)):
        name = f"images/{split}/{index:06d}.png"
        Image.fromarray(render(scene)[0]).save(out / name)
        part = next(part for part, bound in bounds.items() if index < bound)
        for kind, lines in task_rows(scene, index, rng, other).items():
            file = f"refcoco/{part}" if kind == "refcoco" else f"{kind}/val"
            rows[file] += [{"image": name, "width": SIZE, "height": SIZE, **line} for line in lines]
    for name, lines in rows.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_evaluation(out, split, count, described, seed):
    """All that the tasks of `spr_tiny_world` ask about scenes of one split; `described` of them by region, as
    OUT/val.json.
    """
    out = Path(out)
    (out / "images" / split).mkdir(parents=True, exist_ok=True)
    write_tasks(out, split, count, seed)
    write_coco(out, split, described, seed, "val")


def write_geometry(out, split, count, seed, hardness=Hardness()):
    """OUT/depth/SPLIT/*.png, 16 bits, and OUT/graphs/SPLIT.json, picture → graph, of a split's pictures."""
    (out / "depth" / split).mkdir(parents=True, exist_ok=True)
    (out / "graphs").mkdir(exist_ok=True)
    graphs = {}
    for index, scene in enumerate(scenes(split, count, seed, hardness)):
        Image.fromarray(depth_map(scene)).save(out / "depth" / split / f"{index:06d}.png")
        graphs[f"{split}/{index:06d}.png"] = graph(scene)
    (out / "graphs" / f"{split}.json").write_text(json.dumps(graphs))


def write_world(
    out, sft=1000, spr=800, val=100, test=500, seed=0, noise=NOISE, spr_noise=0.0, geometry=False, **hardness
):
    """Writes the whole data folder; the counts are numbers of scenes, `hardness` are fields of `Hardness`;
    `geometry` adds exact depth and scene graphs of the scenes for SPR and of the asked ones.
    """
    out, hardness = Path(out), Hardness(**hardness)
    for folder in ("images/sft", "images/spr", "images/val", "images/test"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_sft(out, sft, seed, noise, hardness)
    write_coco(out, "spr", spr, seed, noise=spr_noise, hardness=hardness)
    write_coco(out, "val", val, seed, hardness=hardness)
    write_tasks(out, "test", test, seed, hardness)
    for split, count in (("spr", spr), ("test", test)) if geometry else ():
        write_geometry(out, split, count, seed, hardness)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sft", type=int, default=1000, help="scenes with conversations")
    parser.add_argument("--spr", type=int, default=800, help="scenes with COCO boxes")
    parser.add_argument("--val", type=int, default=100, help="more scenes with COCO boxes")
    parser.add_argument(
        "--test",
        type=int,
        default=500,
        help="held-out scenes, up to seven expressions each, and other questions",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=NOISE, help="of a side, on sft boxes")
    parser.add_argument("--spr_noise", type=float, default=0.0, help="the same on spr.json's boxes")
    parser.add_argument("--geometry", action="store_true", help="also exact depth and scene graphs")
    for one in fields(Hardness):
        parser.add_argument(
            f"--{one.name}", type=type(one.default), default=one.default, help=one.metadata["help"]
        )
    wanted = vars(parser.parse_args())
    try:
        Hardness(**{one.name: wanted[one.name] for one in fields(Hardness)})
    except ValueError as error:
        parser.error(str(error))
    write_world(**wanted)


if __name__ == "__main__":
    main()
