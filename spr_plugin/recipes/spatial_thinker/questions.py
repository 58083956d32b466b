"""Questions about scene graphs with one right option of four, by templates, in place of the closed models'
that made STVQA-7K.

Options are wrong by the boxes, or by what the graph says: where a graph is not whole, as Visual Genome's
are, a predicate that nobody annotated may hold all the same. Objects are spoken of by names that no other
object of the picture has. Seeded; knows no file and no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from spr_plugin.boxes import pair_iou
from spr_plugin.data.annotations import Annotation
from spr_plugin.recipes.spatial_thinker.graph import Triple
from spr_plugin.recipes.spatial_thinker.pictures import GraphImage

CLEAR, SAME = 1.5, 1.1  # a ratio from which two sizes or distances differ, and up to which they do not
TRIES = 8  # draws of objects before a picture is said to give no question of a kind
OFF_CENTRE = 0.1  # of a side: what lies nearer to the middle is on neither side of it
MOST_COUNTED = 6
NUMBERS = "zero one two three four five six seven eight nine ten".split()
OPPOSITES = {"left of": "right of", "above": "below", "in front of": "behind", "larger than": "smaller than"}
OPPOSITES |= {there: here for here, there in OPPOSITES.items()}
BY_BOXES = ("left of", "right of", "above", "below", "inside")  # what boxes rule out in any picture
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        right, wrong: the options' texts.
        about: ids of the objects that an answer's graph is to hold.
        reason: why the right one is right, in a sentence.
    """

    task: str
    text: str
    right: str
    wrong: tuple[str, ...]
    about: tuple[int | str, ...]
    reason: str


@dataclass(frozen=True)
class Scene:
    """A picture as templates look at it.

    Attributes:
        rng: all draws come from it.
        other_name: draws a name from other pictures, or None.
        named: name → how many objects have it.
        single: the objects that their names tell apart from all others.
    """

    image: GraphImage
    rng: Random
    other_name: Callable[[Random], str | None]
    named: Counter[str] = field(init=False)
    single: list[Annotation] = field(init=False)

    def __post_init__(self) -> None:
        named = Counter(one.label for one in self.image.annotations)
        alone = {
            name
            for name, number in named.items()
            if number == 1 and not _is_part(name, [other for other in named if other != name])
        }
        # The way past a frozen dataclass, for what follows from its fields.
        object.__setattr__(self, "named", named)
        object.__setattr__(self, "single", [one for one in self.image.annotations if one.label in alone])

    def drawn(self, count: int) -> Iterator[list[Annotation]]:
        """So many of the single ones, some times."""
        single = self.single
        for _ in range(TRIES if len(single) >= count else 0):
            yield self.rng.sample(single, count)

    def another(self, but: Sequence[str]) -> str | None:
        """A name of this picture that is none of these."""
        left = [name for name in self.named if name not in but]
        return self.rng.choice(left) if left else None


def questions(
    image: GraphImage, tasks: Sequence[str], count: int, seed: int, other_name: Callable[[Random], str | None]
) -> list[Asked]:
    """Up to `count` different questions, of the tasks in turn, in an order drawn by `seed`."""
    rng = Random(seed)
    scene, order = Scene(image, rng, other_name), list(tasks)
    rng.shuffle(order)
    unique: dict[tuple[str, str], Asked] = {}
    # Twice as many turns as questions: some templates find nothing, or what was asked before.
    for turn in range(2 * max(count, len(order))):
        asked = TEMPLATES[order[turn % len(order)]](scene)
        if asked:
            unique.setdefault((asked.text, asked.right), asked)
        if len(unique) == count:
            break
    return list(unique.values())


# --- the templates


def relation(scene: Scene) -> Asked | None:
    """Which predicate holds of two objects."""
    by_id = {one.id: one for one in scene.single}
    known = [one for one in scene.image.triples if one.subject in by_id and one.object in by_id]
    for triple in scene.rng.sample(known, min(TRIES, len(known))):
        subject, other = by_id[triple.subject], by_id[triple.object]
        wrong = _not_so(scene, triple, subject, other)
        if len(wrong) >= 3:
            text = f"Which relation fits: the {subject.label} ... the {other.label}?"
            reason = f"the {subject.label} is {triple.predicate} the {other.label}."
            options = tuple(scene.rng.sample(wrong, 3))
            return Asked("relation", text, triple.predicate, options, (subject.id, other.id), reason)
    return None


def size(scene: Scene) -> Asked | None:
    """Which of two boxes is the larger."""
    for first, second in scene.drawn(2):
        text = f"Which object is larger in the picture, the {first.label} or the {second.label}?"
        areas = first.box.area, second.box.area
        if asked := _compared(scene, "size", text, "larger than", (first, second), areas):
            return asked
    return None


def distance(scene: Scene) -> Asked | None:
    """Which of two centres is closer to a third."""
    for here, first, second in scene.drawn(3):
        two = f"the {first.label} or the {second.label}"
        text = f"Which object is closer to the {here.label} in the picture, {two}?"
        # The nearer one is the greater in what is compared.
        near = 1 / max(1.0, _apart(here, first)), 1 / max(1.0, _apart(here, second))
        if asked := _compared(scene, "distance", text, "closer than", (first, second), near, here):
            return asked
    return None


def location(scene: Scene) -> Asked | None:
    """In which quarter of the picture the centre lies."""
    sides = scene.image.width, scene.image.height
    for (one,) in scene.drawn(1):
        off = [coordinate / side - 0.5 for coordinate, side in zip(_centre(one), sides)]
        if min(map(abs, off)) >= OFF_CENTRE:
            across, down = ("left" if off[0] < 0 else "right"), ("above" if off[1] < 0 else "below")
            options = [f"{x} and {y}" for y in ("above", "below") for x in ("left", "right")]
            right = f"{across} and {down}"
            wrong = tuple(text for text in options if text != right)
            text = f"Where is the {one.label}, from the middle of the picture?"
            return Asked("location", text, right, wrong, (one.id,), f"the {one.label} is {right}.")
    return None


def count(scene: Scene) -> Asked | None:
    """How many objects have a name; none of them twice, which Visual Genome's annotators may have boxed
    twice.
    """
    names = [name for name, number in scene.named.items() if number <= MOST_COUNTED]
    # A name that several objects have is as likely as one that one has.
    several = [name for name in names if scene.named[name] > 1]
    pool = several if several and scene.rng.random() < 0.5 else names
    name = scene.rng.choice(pool) if pool else ""
    objects = [one for one in scene.image.annotations if one.label == name]
    boxes = [one.box.xyxy for one in objects]
    # Each pair once: a box and those before it.
    twice = any(pair_iou(a, b) >= 0.5 for index, a in enumerate(boxes) for b in boxes[:index])
    if not objects or twice or _is_part(name, [other for other in scene.named if other != name]):
        return None
    # Four numbers in a row, the right one at any of their places.
    first = scene.rng.randint(max(0, len(objects) - 3), len(objects))
    options = range(first, first + 4)
    wrong = tuple(NUMBERS[number] for number in options if number != len(objects))
    right = NUMBERS[len(objects)]
    text = f"How many objects in the picture are: {name}?"
    return Asked("count", text, right, wrong, tuple(one.id for one in objects), f"I count {right}.")


def existence(scene: Scene) -> Asked | None:
    """Which of four things the picture shows."""
    for (one,) in scene.drawn(1):
        wrong: dict[str, None] = {}
        for _ in range(TRIES * 2):
            name = scene.other_name(scene.rng)
            if name and not _is_part(name, list(scene.named)):
                wrong[name] = None
            if len(wrong) == 3:
                text, reason = "Which object is in the picture?", f"I see the {one.label}."
                return Asked("existence", text, one.label, tuple(wrong), (one.id,), reason)
    return None


TEMPLATES: dict[str, Callable[[Scene], Asked | None]] = {
    "relation": relation,
    "size": size,
    "location": location,
    "distance": distance,
    "count": count,
    "existence": existence,
}


# --- what they are made of


def _compared(
    scene: Scene,
    task: str,
    text: str,
    words: str,
    two: tuple[Annotation, Annotation],
    values: tuple[float, float],
    beside: Annotation | None = None,
) -> Asked | None:
    """Which of two is the greater by its value, or that they are the same; None where that is not clear."""
    ratio, named = max(values) / min(values), (*([beside] if beside else ()), *two)
    third = scene.another([one.label for one in named])
    if SAME < ratio < CLEAR or third is None:
        return None
    # Largest first, or nobody where they are the same.
    more, less = (two if values[0] > values[1] else two[::-1]) if ratio >= CLEAR else (None, None)
    right = more.label if more else "the same"
    wrong = tuple(name for name in (two[0].label, two[1].label, "the same", third) if name != right)
    reason = f"the {more.label} is {words} the {less.label}." if more and less else "they are the same."
    return Asked(task, text, right, wrong, tuple(one.id for one in named), reason)


def _not_so(scene: Scene, right: Triple, subject: Annotation, other: Annotation) -> list[str]:
    """Predicates that do not hold of two objects, as far as boxes and graph tell."""
    graph = scene.image.triples
    pool = dict.fromkeys([*(triple.predicate for triple in graph), *BY_BOXES])
    pool |= dict.fromkeys(OPPOSITES[predicate] for predicate in list(pool) if predicate in OPPOSITES)
    stated = {one.predicate for one in graph if (one.subject, one.object) == (subject.id, other.id)}
    stated |= {
        OPPOSITES.get(one.predicate, one.predicate)
        for one in graph
        if (one.subject, one.object) == (other.id, subject.id)
    }
    words = {word for predicate in stated for word in _WORD.findall(predicate)} - {"of", "to", "than"}
    possible = _may_hold(subject, other)
    return [
        predicate
        for predicate in pool
        if predicate not in stated
        and not possible.get(predicate, False)
        and not words & set(_WORD.findall(predicate))
        and predicate != right.predicate
    ]


def _may_hold(subject: Annotation, other: Annotation) -> dict[str, bool]:
    """Predicates that boxes decide → whether there is any truth in it."""
    (x, y), (ox, oy) = _centre(subject), _centre(other)
    area, others = subject.box.area, other.box.area
    return {
        "left of": x < ox,
        "right of": x > ox,
        "above": y < oy,
        "below": y > oy,
        "larger than": area > others,
        "smaller than": area < others,
        "inside": _shared(subject, other) >= area / 2,
    }


def _shared(first: Annotation, second: Annotation) -> float:
    """Area that two boxes share."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first.box.xyxy, second.box.xyxy
    return max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))


def _is_part(name: str, others: Sequence[str]) -> bool:
    """Whether one of the names says what `name` says, or the other way round: "tree" and "green trees"."""
    own = _stems(name)
    return any(own <= stems or stems <= own for stems in map(_stems, others))


def _stems(name: str) -> set[str]:
    # "s" itself must not become nothing.
    return {word.rstrip("s") or word for word in _WORD.findall(name.lower())}


def _centre(one: Annotation) -> tuple[float, float]:
    return (one.box.x1 + one.box.x2) / 2, (one.box.y1 + one.box.y2) / 2


def _apart(first: Annotation, second: Annotation) -> float:
    (x, y), (ox, oy) = _centre(first), _centre(second)
    return float(((x - ox) ** 2 + (y - oy) ** 2) ** 0.5)
