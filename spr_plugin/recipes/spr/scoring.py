"""The scores of a description (SPR, equations of the section "scores").

    S_sem = 1/2 (S(I_crop, T) + S_local(I, T))          T: the description without coordinates
    S_loc = 1/n sum_i max_j p[i, j]                     p[i, j] = IoU(gt_i, pred_j) if IoU >= 0.5 else 0
            (with --spr_match name also 0 where the names of gt_i and pred_j do not agree)
    S     = lambda S_sem + (1 - lambda) S_loc           lambda = 0.8

Formulas on plain arrays first, then :class:`SPRScorer`, which asks a similarity model. Which model that is,
and the detector's, is the business of ``hooks/``; what is scored is put together in
:mod:`spr_plugin.recipes.spr.recipe`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.optimize import linear_sum_assignment

from spr_plugin.boxes import Array, Box, best_iou, iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import ask
from spr_plugin.recipes.spr.models import Description, Detection, Similarity
from spr_plugin.recipes.spr.names import Agreement, Likeness
from spr_plugin.recipes.spr.regions import RegionQuery

if TYPE_CHECKING:
    import torch

_WORD, _SENTENCE_END = re.compile(r"\w"), re.compile(r"(?<=[.!?;])\s+")
IOU_FLOOR = 0.5  # p[i, j] is 0 below; also where detector boxes count as the same object


# --- the formulas


def semantic_score(s_crop: float, s_local: float) -> float:
    """S_sem, the mean of the two cosines."""
    return (s_crop + s_local) / 2


def localization_score(
    truth: ArrayLike, predicted: ArrayLike, agree: Agreement | None = None, repeated: int = 0
) -> float:
    """S_loc in [0, 1] of `predicted` (m, 4) against `truth` (n, 4), xyxy in one space. m may be 0; n must not
    (ValueError).

    Args:
        agree: (m, n) bool, whose names agree; None where names do not count.
        repeated: boxes (:func:`duplicates`) that each count as one more object, which nothing finds.
    """
    # Of each true box the best predicted one; `initial` where nothing is predicted.
    best = (
        best_iou(truth, predicted) if agree is None else _worth(predicted, truth, agree).max(0, initial=0.0)
    )
    if not len(best):
        raise ValueError("S_loc is a mean over ground-truth boxes, and there is none")
    return float(np.where(best >= IOU_FLOOR, best, 0.0).sum() / (len(best) + repeated))


def duplicates(truth: ArrayLike, written: ArrayLike, agree: Agreement | None = None) -> int:
    """How many of the boxes that were `written` lie on an object (p > 0) that another one of them is for, in
    the best one-to-one matching.
    """
    worth = _worth(written, truth, agree)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    # Boxes that lie on any object, less those that have one of their own.
    return int((worth > 0).any(axis=1).sum() - (worth[rows, columns] > 0).sum())


def _worth(predicted: ArrayLike, truth: ArrayLike, agree: Agreement | None) -> Array:
    """p[i, j], transposed: (m, n)."""
    overlaps = iou_matrix(predicted, truth)
    counts = overlaps >= IOU_FLOOR
    return np.where(counts if agree is None else counts & agree, overlaps, 0.0)


def total_score(lam: float, s_sem: float, s_loc: float) -> float:
    """S = lambda S_sem + (1 - lambda) S_loc."""
    return lam * s_sem + (1 - lam) * s_loc


# --- what goes into them


def strip_coordinates(text: str, parsed: Parsed, box_format: BoxFormat) -> str:
    """T: `text` without its coordinates, also those that could not be read. "" where no word is left."""
    words = box_format.words(text, parsed).strip()
    return words if _WORD.search(words) else ""


def ground_truth(query: RegionQuery, detections: Iterable[Detection] = ()) -> Array:
    """The region's ground truth, (n, 4) pixels: its annotations, joined with `detections` for all its
    candidates' phrases.

    Annotations are never dropped. Detector boxes join after non-maximum suppression at IoU 0.5 among
    themselves, and only those that overlap no annotation by IoU >= 0.5 and lie in the region with at least
    half of their area, as an annotation must.
    """
    # reshape: without any, the array would have no second axis.
    boxes = np.array([annotation.box.xyxy for annotation in query.truth], dtype=np.float64).reshape(-1, 4)
    ranked = sorted(
        # A set: phrases may share a box. Best score first, equal ones by their corners.
        {(-score, box.pixels()) for _, box, score in detections if _mostly_inside(box, query.region)}
    )
    detected = suppressed([box for _, box in ranked])
    return np.concatenate([boxes, detected[best_iou(detected, boxes) < IOU_FLOOR]])


def truth_names(query: RegionQuery, truth: Array, detections: Iterable[Detection] = ()) -> list[str]:
    """What each box of the :func:`ground_truth` is called: an annotation's label, or the phrase for which a
    detector gave it, of several the one with the best score.
    """
    # Worst first: the best phrase of a box is the last that is written.
    ranked = sorted(((-score, phrase, box.pixels()) for phrase, box, score in detections), reverse=True)
    phrases = {box: phrase for _, phrase, box in ranked}
    labels = [annotation.label for annotation in query.truth]
    return labels + [phrases[tuple(box)] for box in truth[len(labels) :].tolist()]


def suppressed(boxes: Sequence[tuple[float, ...]]) -> Array:
    """Non-maximum suppression at IoU 0.5 of `boxes` (best first): (k, 4) of those that no better kept one
    overlaps.
    """
    left: Array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    kept: list[Array] = []
    while len(left):
        # The best that is left stays, and what overlaps it goes: a turn for each that stays.
        kept.append(left[0])
        left = left[1:][iou_matrix(left[:1], left[1:])[0] < IOU_FLOOR]
    return np.array(kept, dtype=np.float64).reshape(-1, 4)


def _mostly_inside(box: Box, region: Box) -> bool:
    x1, y1, x2, y2 = box.pixels()
    rx1, ry1, rx2, ry2 = region.pixels()
    inside = max(0.0, min(x2, rx2) - max(x1, rx1)) * max(0.0, min(y2, ry2) - max(y1, ry1))
    return inside >= (x2 - x1) * (y2 - y1) / 2


def split_text(text: str, count_tokens: Callable[[str], int], limit: int) -> list[tuple[str, int]]:
    """`text` in parts of at most `limit` tokens, each with its token count; one part where it fits.

    Parts are runs of whole sentences; a sentence over the limit is split between words, a word over it
    between characters. No word is lost. "" gives [].
    """
    text = text.strip()
    if (tokens := count_tokens(text)) <= limit:
        return [(text, tokens)] if text else []
    parts = _packed(_SENTENCE_END.split(text), " ", count_tokens, limit)
    return [(part, count_tokens(part)) for part in parts if part]


def _packed(units: Sequence[str], joiner: str, count_tokens: Callable[[str], int], limit: int) -> list[str]:
    """Greedy runs of `units` within `limit`; a unit over it is packed by its words, a word by its
    characters.
    """
    parts, run = [], ""
    for unit in units:
        longer = f"{run}{joiner}{unit}" if run else unit
        if count_tokens(longer) <= limit:
            run = longer
            continue
        parts.append(run)
        run = unit
        if count_tokens(unit) > limit and len(unit) > 1:
            finer = (unit.split(), " ") if len(unit.split()) > 1 else (list(unit), "")
            # The last piece stays open: the next unit may still fit behind it.
            *whole, run = _packed(*finer, count_tokens, limit)
            parts += whole
    return [part for part in [*parts, run] if part]


# --- the scorer


class SPRScorer:
    """SPR's score of descriptions.

    Args:
        similarity: gives the two cosines of S_sem.
        lam: lambda, the weight of S_sem.
        local: whether S_local has its half of S_sem; without it S_sem is S(I_crop, T) (an ablation).

    Attributes:
        likeness: the similarity model's own, or None where it has none.
    """

    def __init__(self, similarity: Similarity, lam: float = 0.8, local: bool = True):
        if not 0 <= lam <= 1:
            raise ValueError(f"lambda is a weight between 0 and 1, not {lam}")
        self.similarity, self.lam, self.local = similarity, lam, local
        self.likeness: Likeness | None = getattr(similarity, "likeness", None)

    def score(
        self, picture: Image.Image, descriptions: Sequence[Description]
    ) -> list[tuple[dict[str, float], float]]:
        """The terms s_crop, s_local, s_sem and s_loc of each description of this picture, and S."""
        # Each region and text once: answers repeat one another.
        asked = list(dict.fromkeys((one.query.region, one.words) for one in descriptions))
        cosines = dict(zip(asked, self.similarity.score(picture, asked)))
        return [self._scored(one, *cosines[one.query.region, one.words]) for one in descriptions]

    def _scored(self, one: Description, s_crop: float, s_local: float) -> tuple[dict[str, float], float]:
        s_sem = semantic_score(s_crop, s_local) if self.local else s_crop
        s_loc = localization_score(one.truth, one.predicted, one.agree, one.repeated)
        terms = {"s_crop": s_crop, "s_local": s_local, "s_sem": s_sem, "s_loc": s_loc}
        return terms, total_score(self.lam, s_sem, s_loc)


@hookimpl
def spr_scorer(config: SPRConfig, device: str | torch.device) -> SPRScorer | None:
    """``--spr_scorer spr``. Raises UserError where no plugin has the similarity model that the flags name."""
    if config.spr_scorer != "spr":
        return None
    similarity: Similarity | None = ask("spr_similarity", config=config, device=device)
    if similarity is None and not config.spr_clip:
        raise UserError(
            "--spr_clip: this command names no vision tower whose text tower could score; name a CLIP "
            "checkpoint"
        )
    if similarity is None:
        raise UserError(
            f"--spr_clip {config.spr_clip}: no image-text model; name a CLIP checkpoint with a text tower"
        )
    return SPRScorer(similarity, config.spr_lambda, local=not config.spr_no_local)
