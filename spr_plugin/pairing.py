"""Preference pairs: the best repaired answer to a query over its worst initial one (SPR, "pairing").

Knows answers with their scores, and nothing of what they say.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import MadePicture, source_of
from spr_plugin.hookspecs import hookimpl
from spr_plugin.ids import digest
from spr_plugin.recipes.base import JudgedAnswer, Query


@dataclass(frozen=True)
class PreferencePair:
    """One row for DPO.

    Attributes:
        id: hash of query, prompt and both answers.
        query: the query's id.
        prompt: the query's question, which both answer.
        pictures: what the query's pictures are opened by, in their order: paths, and pictures that are made.
        chosen, rejected: the answers.
        chosen_score, rejected_score: of exactly these texts.
        chosen_candidate, rejected_candidate: ids of the candidates they come from; they may be one and the
            same.
    """

    id: str
    query: str
    prompt: str
    pictures: tuple[str | MadePicture, ...]
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    chosen_candidate: str
    rejected_candidate: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PreferencePair:
        """The pair of a record; what newer versions add to one is not looked at."""
        known = {name: record[name] for name in cls.__dataclass_fields__}
        return cls(**known | {"pictures": tuple(map(source_of, record["pictures"]))})


Answers = Mapping[str, JudgedAnswer]  # candidate id → its answer, in the order of the ids


class Pairing(Protocol):
    """Chooses chosen and rejected. From the hook ``spr_pairing``."""

    def __call__(self, query: Query, answers: Answers) -> tuple[str, str] | str:
        """Ids of the candidates whose repaired text is chosen and whose text is rejected, or a word why there
        is no pair. The same for the same answers in whatever order they were drawn.
        """


def make_pair(
    query: Query, prompt: str, candidates: Sequence[Mapping[str, Any]], pairing: Pairing
) -> PreferencePair | str:
    """The query's pair, or the reason why it has none.

    Args:
        candidates: as the log of scores holds them: an id, and the fields of a JudgedAnswer.
        pairing: who chooses; ``chosen_equals_rejected`` is the reason where the two differ at most in white
            space.
    """
    answers = {row["id"]: answer_of(row) for row in sorted(candidates, key=lambda row: row["id"])}
    ids = pairing(query, answers)
    if isinstance(ids, str):
        return ids
    best, worst = (answers[id] for id in ids)
    assert best.repaired_score is not None and worst.score is not None, "what has no score is in no pair"
    if _same(best, worst):
        return "chosen_equals_rejected"
    return PreferencePair(
        id=digest([query.id, prompt, best.repaired, worst.text]),
        query=query.id,
        prompt=prompt,
        pictures=query.sources,
        chosen=best.repaired,
        rejected=worst.text,
        chosen_score=best.repaired_score,
        rejected_score=worst.score,
        chosen_candidate=ids[0],
        rejected_candidate=ids[1],
    )


def answer_of(row: Mapping[str, Any]) -> JudgedAnswer:
    """A candidate's answer of a record of scores."""
    return JudgedAnswer(**{name: row[name] for name in JudgedAnswer.__dataclass_fields__})


def _same(best: JudgedAnswer, worst: JudgedAnswer) -> bool:
    return best.repaired.split() == worst.text.split()


Scores = dict[str, float]  # candidate id → score


def sides(answers: Answers) -> tuple[Scores, Scores] | str:
    """The candidates that may be chosen with their repaired scores, and those that may be rejected with their
    scores, in the order of their ids, or why there are none.

    ``too_few_valid``  fewer than two answers have a score
    and where none may be chosen, or none rejected, what keeps the best of them, or the worst, from it.
    """
    scored = {id: answer for id, answer in answers.items() if answer.score is not None}
    if len(scored) < 2:
        return "too_few_valid"
    repaired = {id: one.repaired_score for id, one in scored.items() if one.repaired_score is not None}
    choosable = {id: score for id, score in repaired.items() if scored[id].not_choosable is None}
    rejectable = {
        id: one.score for id, one in scored.items() if one.score is not None and one.not_rejectable is None
    }
    if not choosable:
        return str(scored[_best(repaired) if repaired else min(scored)].not_choosable)
    if not rejectable:
        return str(scored[min(scored, key=lambda id: scored[id].score or 0.0)].not_rejectable)
    return choosable, rejectable


def _best(scores: Scores) -> str:
    return max(scores, key=scores.__getitem__)


def best_over_worst(query: Query, answers: Answers, min_gap: float = 0.0) -> tuple[str, str] | str:
    """The highest score when repaired over the lowest as written; of equals, the lower id.

    ``gap_too_small``: the chosen one's score is not above the rejected one's, or by less than `min_gap`.
    """
    both = sides(answers)
    if isinstance(both, str):
        return both
    choosable, rejectable = both
    best, worst = _best(choosable), min(rejectable, key=rejectable.__getitem__)
    gap = choosable[best] - rejectable[worst]
    if not _same(answers[best], answers[worst]) and (gap <= 0 or gap < min_gap):
        return "gap_too_small"
    return best, worst


def by_chance(query: Query, answers: Answers) -> tuple[str, str] | str:
    """An ablation: two different candidates, drawn by the query's seed, whatever their scores."""
    both = sides(answers)
    if isinstance(both, str):
        return both
    choosable, rejectable = map(list, both)
    rng = random.Random(query.seed)
    best = rng.choice(choosable)
    others = [id for id in rejectable if id != best]
    return (best, rng.choice(others)) if others else "too_few_valid"


@hookimpl
def spr_pairing(config: SPRConfig) -> Pairing | None:
    """``--spr_pairing best_worst``, ``sft`` (the same pairs, trained on otherwise) and ``random``."""
    ordered = functools.partial(best_over_worst, min_gap=config.spr_min_gap)
    known: dict[str, Pairing] = {"best_worst": ordered, "sft": ordered, "random": by_chance}
    return known.get(config.spr_pairing)
