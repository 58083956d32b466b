"""The scores of a description (SPR, equations of the section "scores").

    S_sem = 1/2 (S(I_crop, T) + S_local(I, T))          T: the description without coordinates
    S_loc = 1/n sum_i max_j p[i, j]                     p[i, j] = IoU(gt_i, pred_j) if IoU >= 0.5 else 0
    S     = lambda S_sem + (1 - lambda) S_loc           lambda = 0.8

Formulas on plain arrays first, then :class:`SPRScorer`, which asks a similarity model and, where there is one, a detector. Which
models those are is the business of ``hooks/``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from spr_plugin.boxes import Box, iou_matrix
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.hookspecs import hookimpl
from spr_plugin.regions import RegionQuery

IOU_FLOOR = 0.5  # p[i, j] is 0 below; also where detector boxes count as the same object
Detection = tuple[str, Box, float]


class Similarity(Protocol):
    """An image-text model, from the hook ``spr_similarity``."""

    def score(self, image: Image.Image, region: Box, texts: Sequence[str]) -> list[tuple[float, float]]:
        """(S(I_crop, T), S_local(I, T)) for each text without coordinates: raw cosines."""


class Detector(Protocol):
    """An open-vocabulary detector, from the hook ``spr_detector``."""

    def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        """(phrase, box in pixels of the picture, score) of everything found for `phrases`."""


# --- the formulas


def semantic_score(s_crop: float, s_local: float) -> float:
    """S_sem, the mean of the two cosines."""
    return (s_crop + s_local) / 2


def localization_score(truth: np.typing.ArrayLike, predicted: np.typing.ArrayLike) -> float:
    """S_loc in [0, 1] of `predicted` (m, 4) against `truth` (n, 4), xyxy in one space. m may be 0; n must not (ValueError)."""
    overlaps = iou_matrix(truth, predicted)
    if not len(overlaps):
        raise ValueError("S_loc is a mean over ground-truth boxes, and there is none")
    counted = np.where(overlaps >= IOU_FLOOR, overlaps, 0.0)
    return float(counted.max(axis=1, initial=0.0).mean())


def total_score(lam: float, s_sem: float, s_loc: float) -> float:
    """S = lambda S_sem + (1 - lambda) S_loc."""
    return lam * s_sem + (1 - lam) * s_loc


# --- what goes into them


def strip_coordinates(text: str, parsed: Parsed, box_format: BoxFormat) -> str:
    """T: `text` without its coordinates, also those that could not be read. "" where no word is left."""
    words = box_format.words(text, parsed).strip()
    return words if re.search(r"\w", words) else ""


def ground_truth(query: RegionQuery, detections: Iterable[Detection] = ()) -> np.ndarray:
    """The region's ground truth, (n, 4) pixels: its annotations, joined with `detections` for all its candidates' phrases.

    Annotations are never dropped. Detector boxes join after non-maximum suppression at IoU 0.5 among themselves, and only those
    that overlap no annotation by IoU >= 0.5 and lie in the region with at least half of their area, as an annotation must.
    """
    boxes = np.array([annotation.box.xyxy for annotation in query.truth], dtype=np.float64).reshape(-1, 4)
    ranked = sorted({(-score, box.pixels()) for _, box, score in detections if _mostly_inside(box, query.region)})
    found = suppressed([box for _, box in ranked])
    fresh = iou_matrix(found, boxes).max(axis=1, initial=0.0) < IOU_FLOOR
    return np.concatenate([boxes, found[fresh]])


def suppressed(boxes: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Non-maximum suppression at IoU 0.5 of `boxes` (best first): (k, 4) of those that no better kept one overlaps."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    overlaps, kept = iou_matrix(boxes, boxes), []
    for place in range(len(boxes)):
        if not (overlaps[place, kept] >= IOU_FLOOR).any():
            kept.append(place)
    return boxes[kept]


def _mostly_inside(box: Box, region: Box) -> bool:
    x1, y1, x2, y2 = box.pixels()
    rx1, ry1, rx2, ry2 = region.pixels()
    inside = max(0.0, min(x2, rx2) - max(x1, rx1)) * max(0.0, min(y2, ry2) - max(y1, ry1))
    return inside >= (x2 - x1) * (y2 - y1) / 2


def split_text(text: str, count_tokens: Callable[[str], int], limit: int) -> list[tuple[str, int]]:
    """`text` in parts of at most `limit` tokens, each with its token count; one part where it fits.

    Parts are runs of whole sentences; a sentence over the limit is split between words, a word over it between characters. No
    word is lost. "" gives [].
    """
    parts = _packed(re.split(r"(?<=[.!?;])\s+", text.strip()), " ", count_tokens, limit)
    return [(part, count_tokens(part)) for part in parts if part]


def _packed(units: Sequence[str], joiner: str, count_tokens: Callable[[str], int], limit: int) -> list[str]:
    """Greedy runs of `units` within `limit`; a unit over it is packed by its words, a word by its characters."""
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
            *whole, run = _packed(*finer, count_tokens, limit)
            parts += whole
    return [part for part in [*parts, run] if part]


# --- the scorer


class SPRScorer:
    """SPR's score of the candidates of one region.

    Args:
        similarity: gives the two cosines of S_sem.
        detector: adds its boxes to ground truth and predictions; None: annotations and written boxes alone.
        lam: lambda, the weight of S_sem.
        local: whether S_local has its half of S_sem; without it S_sem is S(I_crop, T) (an ablation).
    """

    def __init__(self, similarity: Similarity, detector: Detector | None = None, lam: float = 0.8, local: bool = True):
        if not 0 <= lam <= 1:
            raise ValueError(f"lambda is a weight between 0 and 1, not {lam}")
        self.similarity, self.detector, self.lam, self.local = similarity, detector, lam, local

    def truth(self, query: RegionQuery, image: Image.Image, texts: Sequence[str], box_format: BoxFormat) -> np.ndarray:
        """The region's ground truth, (n, 4) pixels, pooled over `texts`: give all candidates of the region at once."""
        return ground_truth(query, self._detections(query, image, self._parse(query, texts, box_format)))

    def score(
        self,
        query: RegionQuery,
        image: Image.Image,
        texts: Sequence[str],
        box_format: BoxFormat,
        truth: np.ndarray | None = None,
    ) -> list[dict]:
        """One ``{"terms", "total", "valid", "reason"}`` for each text (in coordinates of the whole picture).

        `terms` are s_crop, s_local, s_sem and s_loc. A text without words (``empty``), with unreadable boxes only (``unparsable``) or
        without any (``no_box``) is not valid: no terms, total 0, and the reason. `truth` (n, 4) pixels defaults to `self.truth` of
        these texts; give it where other texts of the region were pooled, so that all are measured on the same n.
        """
        parsed = self._parse(query, texts, box_format)
        words = [strip_coordinates(text, read, box_format) for text, read in zip(texts, parsed)]
        reasons = [_why_invalid(text, read) for text, read in zip(words, parsed)]
        valid = [place for place, reason in enumerate(reasons) if reason is None]
        detections = self._detections(query, image, [parsed[place] for place in valid])
        if truth is None:
            truth = ground_truth(query, detections)
        cosines = self.similarity.score(image, query.region, [words[place] for place in valid]) if valid else []
        scored = [{"terms": {}, "total": 0.0, "valid": False, "reason": reason} for reason in reasons]
        for place, (s_crop, s_local) in zip(valid, cosines):
            s_loc = localization_score(truth, _predicted(parsed[place], detections))
            scored[place] = self._record(s_crop, s_local, s_loc)
        return scored

    def _record(self, s_crop: float, s_local: float, s_loc: float) -> dict:
        s_sem = semantic_score(s_crop, s_local) if self.local else s_crop
        terms = {"s_crop": s_crop, "s_local": s_local, "s_sem": s_sem, "s_loc": s_loc}
        return {"terms": terms, "total": total_score(self.lam, s_sem, s_loc), "valid": True, "reason": None}

    def _parse(self, query: RegionQuery, texts: Sequence[str], box_format: BoxFormat) -> list[Parsed]:
        return [box_format.parse(text, query.image.width, query.image.height) for text in texts]

    def _detections(self, query: RegionQuery, image: Image.Image, parsed: Sequence[Parsed]) -> list[Detection]:
        """What the detector finds for all the phrases of the region's texts, asked once."""
        phrases = sorted({mention.phrase for read in parsed for mention in read.mentions if mention.phrase})
        return list(self.detector.detect(image, phrases)) if self.detector and phrases else []


def _why_invalid(words: str, parsed: Parsed) -> str | None:
    if not parsed.boxes and parsed.failures:
        return "unparsable"
    if not words:
        return "empty"
    return None if parsed.boxes else "no_box"


def _predicted(parsed: Parsed, detections: Sequence[Detection]) -> list[tuple[float, ...]]:
    """The boxes that a text writes, joined with the detector's for its phrases, in pixels."""
    phrases = {mention.phrase for mention in parsed.mentions}
    return [box.pixels() for box in parsed.boxes] + [box.pixels() for phrase, box, _ in detections if phrase in phrases]


@hookimpl
def spr_scorer(config, device) -> SPRScorer | None:
    """``--spr_scorer spr``. Raises UserError where no plugin has the similarity model or the detector that the flags name."""
    from spr_plugin.plugins import hook

    if config.spr_scorer != "spr":
        return None
    similarity = hook().spr_similarity(config=config, device=device)
    if similarity is None:
        raise UserError(f"--spr_clip {config.spr_clip}: no image-text model; name a CLIP checkpoint with a text tower")
    detector = hook().spr_detector(config=config, device=device) if config.spr_detector else None
    if config.spr_detector and detector is None:
        raise UserError(f"--spr_detector {config.spr_detector}: no plugin knows this detector")
    return SPRScorer(similarity, detector, config.spr_lambda, local=not config.spr_no_local)
