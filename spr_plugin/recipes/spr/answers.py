"""What judging hands on: an answer that was read, a query's truth, a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spr_plugin.boxes import Array, finite
from spr_plugin.errors import UserError
from spr_plugin.formats import Parsed
from spr_plugin.recipes.base import UNREADABLE
from spr_plugin.recipes.spr.models import Detection
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.recipes.spr.scoring import ground_truth, truth_names

Detected = Mapping[str, list[Detection]]  # phrase → what the detector finds for it on the picture


@dataclass(frozen=True)
class Answer:
    """A text that was read: what of it are boxes, its words without coordinates, and why it cannot be scored,
    or None; of one that is scored all the same what is `vague` about it, for which it is never chosen.
    """

    text: str
    parsed: Parsed
    words: str
    reason: str | None
    vague: str | None = None


class Truth(NamedTuple):
    """A query's ground truth: (n, 4) xyxy in pixels, and what each is called."""

    boxes: Array
    names: list[str]


class Score(NamedTuple):
    """What a scorer says of a text: no terms and no score where there is a reason."""

    terms: Mapping[str, float]
    score: float | None
    reason: str | None


def scored(terms: Mapping[str, float], score: float) -> Score:
    numbers = finite((score, *terms.values()))
    return Score(terms, score, None) if numbers else Score({}, None, "not_finite")


def phrases_in(answers: Iterable[Answer]) -> set[str]:
    return {mention.phrase for one in answers for mention in one.parsed.mentions if mention.phrase}


def detections_for(answers: Iterable[Answer], detected: Detected) -> list[Detection]:
    """The detections for the phrases of these answers."""
    return [detection for phrase in sorted(phrases_in(answers)) for detection in detected.get(phrase, ())]


def phrases_of(parsed: Parsed) -> list[str]:
    """What each box that was read is called."""
    return [mention.phrase for mention in parsed.mentions for _ in mention.boxes]


def truth_of(query: RegionQuery, detections: Sequence[Detection] = ()) -> Truth:
    boxes = ground_truth(query, detections)
    return Truth(boxes, truth_names(query, boxes, detections))


def refuse_unreadable(records: Iterable[Mapping[str, Any]]) -> None:
    """UserError where more than half of all answers cannot be read: rejected, they would teach the model
    another box text than its own.

    Args:
        records: of scores.
    """
    reasons = [one["reason"] or one["not_choosable"] for record in records for one in record["candidates"]]
    if 2 * (unread := reasons.count(UNREADABLE)) > len(reasons):
        raise UserError(
            f"{unread} of {len(reasons)} answers cannot be read, more than half: does --spr_box_format name"
            " how this model writes boxes? spr/scores under --output_dir has them"
        )
