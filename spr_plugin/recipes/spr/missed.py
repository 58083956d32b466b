"""Objects that a repaired answer misses, added where the model itself would name them, in words of its own.

Chosen answers are drawn at a temperature and lose boxes to repair: they are shorter than what the model says
when nothing is drawn, and length is what pairs teach first. Objects that are added anywhere else than in the
model's own order teach it to repeat itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from spr_plugin.boxes import Array, Box, Space, pair_iou
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.recipes.spr.names import agreement
from spr_plugin.recipes.spr.refinement import Repaired

Corners = tuple[float, float, float, float]  # xyxy in pixels
# What rises along each order: twice the centre, or the area, negated.
KEYS: Mapping[str, Callable[[Corners], float]] = {
    "left to right": lambda box: box[0] + box[2],
    "top to bottom": lambda box: box[1] + box[3],
    "largest first": lambda box: (box[0] - box[2]) * (box[3] - box[1]),
}
Completed = tuple[Repaired, dict[str, float]]  # and how many objects were added and are missed still
ORDERLY = 0.75  # of the pairs of boxes: from this share on they are in an order; by chance it is a half


class Order(NamedTuple):
    """The order in which a model names objects: one of KEYS, or "" for none; the share that is in it of the
    `pairs` of boxes of one answer, for none the largest there was.
    """

    name: str = ""
    share: float = 0.0
    pairs: int = 0

    def __str__(self) -> str:
        named = self.name or "in no order that is known"
        return f"{named} ({self.share:.0%} of {self.pairs} pairs of boxes)"

    def index_among(self, boxes: Sequence[Corners], new: Corners, seed: int) -> int:
        """Where among `boxes` a new one stands wrong to the fewest; by chance where there is no order."""
        if not self.name:
            return random.Random(f"{seed} {new}").randint(0, len(boxes))
        own, keys = KEYS[self.name](new), [KEYS[self.name](box) for box in boxes]
        # At each index: larger keys before it and smaller ones behind it are on the wrong side.
        wrong = [
            sum(key > own for key in keys[:index]) + sum(key < own for key in keys[index:])
            for index in range(len(keys) + 1)
        ]
        # Of equals the last: behind all that speak no word against it.
        return max(index for index, count in enumerate(wrong) if count == min(wrong))


UNKNOWN = Order()


def measured_order(answers: Iterable[Sequence[Corners]]) -> Order:
    """The order of the boxes of these answers."""
    rising, falling = dict.fromkeys(KEYS, 0), dict.fromkeys(KEYS, 0)
    pairs = 0
    for boxes in answers:
        for first, second in combinations(boxes, 2):
            pairs += 1
            for name, key in KEYS.items():
                rising[name] += key(first) < key(second)
                falling[name] += key(first) > key(second)
    # Two boxes with one key are in no order, and count for none.
    shares = {name: rising[name] / max(1, rising[name] + falling[name]) for name in KEYS}
    best = max(shares, key=shares.__getitem__)
    return Order(best if shares[best] >= ORDERLY else "", shares[best], pairs)


class Missing(NamedTuple):
    """Of a query: its true boxes (n, 4) in pixels, what each is called by those that have it right, "" for
    nothing, and for each answer which of them it names.
    """

    truth: Array
    words: list[str]
    named: list[set[int]]


def added_in(records: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many objects were added to answers, and how many are missed still, of records of scores."""
    terms = [one["repaired_terms"] for record in records for one in record["candidates"]]
    added, missed = (sum(int(one.get(name, 0)) for one in terms) for name in ("added", "missed"))
    return added, missed


def missing_of(
    truth: Array, names: Sequence[str], parsed: Sequence[Parsed], matched: Sequence[Mapping[int, int]]
) -> Missing:
    """What answers miss of a query's `truth`, and how others call it: of the boxes with the true name's noun
    the name of that with the highest IoU, else the true name.

    Args:
        parsed: what was read in each answer.
        matched: of each answer: index of a box that was read → index of its truth.
    """
    best: dict[int, tuple[float, str]] = {}
    for one, pairs in zip(parsed, matched):
        mentions = [mention for mention in one.mentions for _ in mention.boxes]
        for index, true in pairs.items():
            mention = mentions[index]
            right = agreement([mention.phrase], [names[true]])[0, 0]
            if mention.phrase and right and len(mention.boxes) == 1:
                overlap = pair_iou(mention.boxes[0].pixels(), tuple(truth[true].tolist()))
                best[true] = max(best.get(true, (0.0, "")), (overlap, mention.phrase))
    words = [best[true][1] if true in best else name for true, name in enumerate(names)]
    return Missing(truth, words, [set(pairs.values()) for pairs in matched])


def completed(
    repaired: Repaired,
    named: set[int],
    missing: Missing,
    form: BoxFormat,
    size: tuple[int, int],
    order: Order,
    seed: int,
) -> Completed:
    """`repaired` with the objects that it misses, as far as its text takes them.

    Args:
        named: the true boxes that it names.
        size: of the picture, in pixels.
    """
    space, added = Space.pixels(*size), 0
    left = [true for true in range(len(missing.truth)) if true not in named]
    for true in left:
        x1, y1, x2, y2 = map(float, missing.truth[true])
        corners = x1, y1, x2, y2
        boxes = [mention.boxes[0].pixels() for mention in repaired.parsed.mentions]
        phrase, box = missing.words[true], Box.of(corners, space)
        index = order.index_among(boxes, corners, seed)
        text = (
            form.with_item(repaired.text, repaired.parsed, index, phrase, box) if phrase and boxes else None
        )
        if text is not None:
            repaired, added = repaired._replace(text=text, parsed=form.parse(text, *size)), added + 1
    return repaired, {"added": float(added), "missed": float(len(left) - added)}
