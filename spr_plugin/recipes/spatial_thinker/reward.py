"""The reward of an answer (SpatialThinker, arXiv 2511.07403; the formulas as the authors' code has them,
whose weights are those of the text).

    R = I[F] (0.1 F + 0.2 C + 0.5 A + I[A] 0.2 S)

    F  1 where the answer keeps to the format (:func:`spr_plugin.recipes.spatial_thinker.answers.read`)
    C  0.7 c(objects) + 0.3 c(relations), c = max(0, 1 - |predicted - true| / max(true, 1))
    A  1 where the answer is the right one's text
    S  sum of B over the matched / true objects, B = (CIoU + 1) / 2

The matching is Hungarian on (1 - B) + 2 (1 - likeness of the names). A wrong answer has at most 0.3, and a
right one 0.6 or more (0.55 could be had: CIoU falls to -1.5 between two slivers, one upright and one flat). A
box too many costs 0.14 / true of C and brings at most 0.2 (1 - B) / true of S: a flood of boxes gains nothing
where those without it have a B of 0.3 (drawn by chance they have 0.35 on average); with ``count: larger``
where they have 0.15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from spr_plugin.boxes import Array, iou_matrix
from spr_plugin.recipes.spatial_thinker.answers import Answer
from spr_plugin.recipes.spatial_thinker.graph import Graph
from spr_plugin.recipes.spatial_thinker.settings import ThinkerSettings

FORMAT, COUNT, ANSWER, SCENE = 0.1, 0.2, 0.5, 0.2  # weights of the terms
OBJECTS, RELATIONS = 0.7, 0.3  # their shares of C
NAME, PLACE = 2.0, 1.0  # of the cost of a match
FARTHEST = 1e6  # pictures; nothing lies farther away, and squares of it are still numbers
# Names beside names → their (len, len) likeness, 0 to 1.
Likeness = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]


def same_name(predicted: Sequence[str], true: Sequence[str]) -> Array:
    """1 where two names are one, else 0: in place of the cosine of spaCy's vectors."""
    return np.array([[float(one == other) for other in true] for one in predicted]).reshape(
        len(predicted), len(true)
    )


def ciou(first: ArrayLike, second: ArrayLike) -> Array:
    """Complete IoU (Zheng et al., arXiv 1911.08287) of each box of `first` (m, 4) with each of `second` (n,
    4), xyxy in one space: (m, n) in -1.5 to 1; -1 for what is no box (empty, or inside out).
    """
    a, b = (_bounded(boxes) for boxes in (first, second))
    overlap = iou_matrix(a, b)
    sides = [boxes[:, 2:] - boxes[:, :2] for boxes in (a, b)]
    centres = [(boxes[:, 2:] + boxes[:, :2]) / 2 for boxes in (a, b)]
    # (m, 1, 2) against (n, 2): each with each.
    apart = ((centres[0][:, None] - centres[1]) ** 2).sum(-1)
    around = np.maximum(a[:, None, 2:], b[:, 2:]) - np.minimum(a[:, None, :2], b[:, :2])
    # Width over height as an angle, which a height of 0 does not break.
    shape = [np.arctan2(*side.T) for side in sides]
    v = 4 / math.pi**2 * (shape[0][:, None] - shape[1]) ** 2
    worse = 1 - overlap + v
    # v: how far the shapes differ; alpha: how much of that counts, the more the better the boxes overlap.
    alpha = np.divide(v, worse, out=np.zeros_like(v), where=worse > 0)
    diagonal = (around**2).sum(-1)
    distance = np.divide(apart, diagonal, out=np.zeros_like(apart), where=diagonal > 0)
    proper = [np.min(side, axis=-1, initial=np.inf) > 0 for side in sides]
    return np.where(np.logical_and.outer(*proper), overlap - distance - alpha * v, -1.0)


def _bounded(boxes: ArrayLike) -> Array:
    return np.clip(np.array(boxes, np.float64).reshape(-1, 4), -FARTHEST, FARTHEST)


def matched(cious: Array, names: Array) -> list[tuple[int, int]]:
    """(predicted, true) of the best one-to-one matching, as many as the fewer of the two.

    Args:
        cious: (m, n) CIoU of predicted and true boxes.
        names: (m, n) likeness of their names.
    """
    cost = PLACE * (1 - (cious + 1) / 2) + NAME * (1 - names)
    return [(int(row), int(column)) for row, column in zip(*linear_sum_assignment(cost))]


def scene_term(cious: Array, pairs: Sequence[tuple[int, int]], kind: str, count: str) -> float:
    """S.

    Args:
        cious: (m, n) CIoU of predicted and true boxes.
        pairs: the matched ones.
        kind, count: `scene` and `count` of the settings.
    """
    predicted, true = cious.shape
    if not true:
        return 0.0 if predicted else 1.0
    of_pairs = [float(cious[pair]) for pair in pairs]
    if kind == "text_mean":
        return sum(of_pairs) / len(of_pairs) if of_pairs else 0.0
    return sum((one + 1) / 2 for one in of_pairs) / _divisor(predicted, true, count)


def count_term(predicted: Graph, true: Graph, count: str = "true") -> float:
    """C; objects alone where there is no true relation."""
    objects = _near(len(predicted.ids), len(true.ids), count)
    if not true.triples:
        return objects
    return OBJECTS * objects + RELATIONS * _near(len(predicted.triples), len(true.triples), count)


def _near(predicted: int, true: int, count: str) -> float:
    return max(0.0, 1 - abs(predicted - true) / _divisor(predicted, true, count))


def _divisor(predicted: int, true: int, count: str) -> int:
    return max(true, 1) if count == "true" else max(true, predicted, 1)


def answer_term(option: str, right: str) -> float:
    """A: whole text, blanks around it and case aside."""
    return float(option.strip().lower() == right.strip().lower())


def relation_term(predicted: Graph, true: Graph, pairs: Sequence[tuple[int, int]]) -> float:
    """Jaccard index of the triples, those of the answer in the ids of the objects that theirs are matched to;
    1 where neither has any. (The text reports it; the code's reward has no such term.)
    """
    ids = {predicted.ids[row]: true.ids[column] for row, column in pairs}
    stated = {
        (ids.get(one.subject, ""), one.predicate.strip().lower(), ids.get(one.object, ""))
        for one in predicted.triples
    }
    known = {(one.subject, one.predicate.strip().lower(), one.object) for one in true.triples}
    # Two that are written about unknown objects are two mistakes.
    wrong = len(set(predicted.triples)) - len(stated & known)
    union = len(known) + max(0, wrong)
    return len(stated & known) / union if union else 1.0


def total(f: float, c: float, a: float, s: float) -> float:
    """R: without the format nothing counts, and without the right answer no scene."""
    return (FORMAT * f + COUNT * c + ANSWER * a + SCENE * s * a) if f else 0.0


def reward(
    answer: Answer | None,
    true: Graph,
    right: str,
    boxes: Array,
    size: tuple[int, int],
    settings: ThinkerSettings,
    likeness: Likeness = same_name,
) -> tuple[dict[str, float], float]:
    """The terms by name, and R.

    Args:
        answer: None where it does not keep to the format.
        true: the graph of what was asked about, its boxes in pixels of the picture.
        right: the right answer's text.
        boxes: the answer's (m, 4), in the same pixels.
        size: width and height of the picture, by which boxes are scaled before they are compared.
    """
    if answer is None:
        return {"format": 0.0, "count": 0.0, "answer": 0.0, "scene": 0.0}, 0.0
    a, s = answer_term(answer.option, right), 0.0
    if a:
        scale = np.array([*size, *size], np.float64)
        cious = ciou(boxes / scale, true.boxes / scale)
        pairs = matched(cious, likeness(answer.graph.names, true.names)) if cious.size else []
        s = scene_term(cious, pairs, settings.scene, settings.count)
        if settings.relation:
            words = relation_term(answer.graph, true, pairs)
            s = (1 - settings.relation) * s + settings.relation * words
    c = count_term(answer.graph, true, settings.count)
    return {"format": 1.0, "count": c, "answer": a, "scene": s}, total(1.0, c, a, s)
