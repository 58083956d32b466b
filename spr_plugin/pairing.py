"""Preference pairs: the best repaired description of a region over its worst initial one (SPR, "pairing")."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from spr_plugin.ids import digest
from spr_plugin.recipes.spr.regions import RegionQuery


class ScoredText(TypedDict):
    """What a scorer says of one text: named terms, their total, and why it is not valid (None where it is)."""

    terms: dict[str, float]
    total: float
    valid: bool
    reason: str | None


class ScoredCandidate(TypedDict):
    """A candidate with the scores of its text as the model said it and as repaired; one row of a region's record in the log.

    `kept` is the share of its boxes that refinement kept (1 where it has none); of the others the text keeps the words alone.
    """

    id: str
    text: str
    initial: ScoredText
    refined_text: str
    refined: ScoredText
    kept: float


@dataclass(frozen=True)
class PreferencePair:
    """One row for DPO.

    Attributes:
        id: hash of region, prompt and both answers.
        region: the query's id.
        prompt: the plain prompt, which both answer.
        image: path of the whole picture.
        chosen, rejected: answers in coordinates of the whole picture.
        chosen_score, rejected_score: S of exactly these texts.
        chosen_candidate, rejected_candidate: ids of the candidates they come from; they may be one and the same.
    """

    id: str
    region: str
    prompt: str
    image: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    chosen_candidate: str
    rejected_candidate: str


def make_pair(
    query: RegionQuery,
    prompt: str,
    candidates: Sequence[ScoredCandidate],
    min_gap: float = 0.0,
    min_kept: float = 0.8,
    refinement: bool = True,
    by_chance: bool = False,
) -> PreferencePair | str:
    """The region's pair, or the reason why it has none.

    Chosen is the repaired text with the highest S of those that kept `min_kept` of their boxes (words that lost their boxes teach a model
    to write none), rejected the initial text with the lowest; ties go to the lower candidate id. Ablations: without `refinement` chosen is the best *initial* text; `by_chance` draws two candidates, seeded by the query, whatever
    their scores.

    ``too_few_valid``           fewer than two candidates whose initial text is valid
    ``no_box_survived``         none of them keeps a valid text when repaired
    ``too_few_boxes_kept``      those that do have lost too many boxes
    ``chosen_equals_rejected``  the two texts differ at most in white space
    ``gap_too_small``           S of chosen is not above S of rejected, or by less than `min_gap` (not asked of pairs by chance)
    """
    side, text = ("refined", "refined_text") if refinement else ("initial", "text")
    # In the order of ids, so that the first of equals is the lower one and chance sees one order.
    valid = sorted((candidate for candidate in candidates if candidate["initial"]["valid"]), key=lambda candidate: candidate["id"])
    if len(valid) < 2:
        return "too_few_valid"
    choosable = [candidate for candidate in valid if candidate[side]["valid"]]
    if not choosable:
        return "no_box_survived"
    if refinement:
        choosable = [candidate for candidate in choosable if candidate["kept"] >= min_kept]
    if not choosable:
        return "too_few_boxes_kept"
    if by_chance:
        rng = random.Random(query.seed)
        best = rng.choice(choosable)
        worst = rng.choice([candidate for candidate in valid if candidate is not best])
    else:
        best = max(choosable, key=lambda candidate: candidate[side]["total"])
        worst = min(valid, key=lambda candidate: candidate["initial"]["total"])
    chosen, rejected = best[text], worst["text"]
    if chosen.split() == rejected.split():
        return "chosen_equals_rejected"
    gap = best[side]["total"] - worst["initial"]["total"]
    if not by_chance and (gap <= 0 or gap < min_gap):
        return "gap_too_small"
    return PreferencePair(
        id=digest([query.id, prompt, chosen, rejected]),
        region=query.id,
        prompt=prompt,
        image=query.image.path,
        chosen=chosen,
        rejected=rejected,
        chosen_score=best[side]["total"],
        rejected_score=worst["initial"]["total"],
        chosen_candidate=best["id"],
        rejected_candidate=worst["id"],
    )
