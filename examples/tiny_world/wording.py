"""What is said of the tiny world's scenes: expressions, questions with their answers, whole conversations.

Texts hold boxes as LLaVA writes them, `[0.28, 0.34, 0.4, 0.71]`, in 0-1 of the square picture; `noise` makes
those of answers coarse, as instruction data has them.
"""

import numpy as np

from painting import CATEGORIES, SHAPES, SIZE, area, center, crop, random_region

NOISE = 0.12  # of a box's side, on each edge, in instruction data: in what the shipped model was taught last

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
