"""Preference pairs: the best repaired answer to a query over its worst initial one (SPR, "pairing").

Knows answers with their scores, and nothing of what they say.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spr_plugin.boxes import finite
from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import MadePicture, source_of
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.ids import digest
from spr_plugin.plugins import ask
from spr_plugin.recipes.base import JudgedAnswer, Query
from spr_plugin.settings import weighed

ROUNDING = 1e-9  # of two scores' difference: decimals are no floats


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


def untrained(made: int, train: int, marked: int) -> dict[str, int]:
    """Why pairs that were made do not train → how many; logs do not tell held-out pairs from longer ones."""
    why = {"marked": marked, "held out or too long": made - train - marked}
    return {reason: count for reason, count in why.items() if count > 0}


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
    """A candidate's answer of a record of scores. ValueError where a score or a term is no number."""
    answer = JudgedAnswer(**{name: row[name] for name in JudgedAnswer.__dataclass_fields__})
    scores = (score for score in (answer.score, answer.repaired_score) if score is not None)
    if not finite([*scores, *answer.terms.values(), *answer.repaired_terms.values()]):
        raise ValueError(f"a score or term of {row['id']} is no finite number")
    return answer


def _same(best: JudgedAnswer, worst: JudgedAnswer) -> bool:
    return best.repaired.split() == worst.text.split()


Scores = dict[str, float]  # candidate id → score
LENGTHS_APART = 0.1  # of the longer one: texts of one length


def sides(answers: Answers, least: int = 2) -> tuple[Scores, Scores] | str:
    """The candidates that may be chosen with their repaired scores, and those that may be rejected with their
    scores, in the order of their ids, or why there are none.

    ``too_few_valid``  fewer answers than `least` have a score
    and where none may be chosen, or none rejected, what keeps the best of them, or the worst, from it.
    """
    scored = {id: answer for id, answer in answers.items() if answer.score is not None}
    if len(scored) < least:
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
    # max keeps the first of equals, which is the lower id: answers are in the order of their ids.
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
    gap = _gap(answers, best, worst)
    # Without a least gap too, equal scores make no pair.
    if not _same(answers[best], answers[worst]) and not _enough(gap, min_gap):
        return "gap_too_small"
    return best, worst


def repaired_over_said(query: Query, answers: Answers, min_gap: float = 0.0) -> tuple[str, str] | str:
    """An answer when repaired over itself as written: the same words, other boxes. Of the answers that repair
    made better that with the highest score when repaired.

    ``none_worse``: none may be both. ``chosen_equals_rejected``: repair changed none of them.
    ``gap_too_small``: as above.
    """
    both = sides(answers, least=1)
    if isinstance(both, str):
        return both
    choosable, rejectable = both
    own = [(id, id) for id in choosable if id in rejectable]
    return _best_of(own, answers, lambda best, worst: choosable[best], min_gap) if own else "none_worse"


def equally_long(query: Query, answers: Answers, min_gap: float = 0.0) -> tuple[str, str] | str:
    """The two answers of one length whose scores are furthest apart: of other lengths a model learns the
    length first.

    ``no_equal_length``: there are no two whose numbers of characters differ by a tenth of the larger at most.
    """
    both = sides(answers)
    if isinstance(both, str):
        return both
    choosable, rejectable = both
    # An answer with itself too: its repaired text is nearly as long as it was.
    like = [(c, r) for c in choosable for r in rejectable if _alike(answers[c].repaired, answers[r].text)]
    apart = functools.partial(_gap, answers)
    return _best_of(like, answers, apart, min_gap) if like else "no_equal_length"


def _alike(first: str, second: str) -> bool:
    longest = max(len(first), len(second))
    return abs(len(first) - len(second)) <= longest * LENGTHS_APART


def _gap(answers: Answers, best: str, worst: str) -> float:
    """By how much the first scores higher when repaired than the second as written."""
    high, low = answers[best].repaired_score, answers[worst].score
    assert high is not None and low is not None, "what has no score is in no pair"
    return high - low


def _enough(gap: float, min_gap: float) -> bool:
    """Whether one answer scores higher than another by `min_gap`: 0.9 over 0.8 is 0.1."""
    return gap > 0 and gap > min_gap - ROUNDING


def _best_of(
    pairs: Sequence[tuple[str, str]], answers: Answers, rank: Callable[[str, str], float], min_gap: float
) -> tuple[str, str] | str:
    """Of `pairs` that differ, and whose chosen one scores higher by `min_gap`, that of the highest rank; of
    equals the first.
    """
    pairs = [(best, worst) for best, worst in pairs if not _same(answers[best], answers[worst])]
    if not pairs:
        return "chosen_equals_rejected"
    enough = [ids for ids in pairs if _enough(_gap(answers, *ids), min_gap)]
    return max(enough, key=lambda ids: rank(*ids)) if enough else "gap_too_small"


def by_chance(query: Query, answers: Answers) -> tuple[str, str] | str:
    """An ablation: two different candidates, drawn by the query's seed, whatever their scores."""
    both = sides(answers)
    if isinstance(both, str):
        return both
    choosable, rejectable = map(list, both)
    rng = random.Random(query.seed)
    best = rng.choice(choosable)
    # Not paired with itself: repaired over written is another pairing.
    others = [id for id in rejectable if id != best]
    return (best, rng.choice(others)) if others else "too_few_valid"


@dataclass(frozen=True)
class Mixed:
    """Several pairings, of which the seed of a query deals it one; what that one says counts.

    Attributes:
        shares: of the queries, in the order of `pairings`; their sum is of no account.
    """

    pairings: tuple[Pairing, ...]
    shares: tuple[float, ...]

    def __call__(self, query: Query, answers: Answers) -> tuple[str, str] | str:
        # A stream of its own: what else is drawn by the query's seed must not go with it.
        (dealt,) = random.Random(f"{query.seed} pairing").choices(self.pairings, self.shares)
        return dealt(query, answers)


def find_pairing(config: SPRConfig) -> Pairing:
    """What ``--spr_pairing`` names. UserError for a name that no plugin has."""
    shares = weighed(config.spr_pairing)
    pairings: list[Pairing] = []
    for name in shares:
        pairing: Pairing | None = ask("spr_pairing", name=name, config=config)
        if pairing is None:
            raise UserError(f"--spr_pairing {name}: no plugin has it; ours are {', '.join(OURS)}")
        pairings.append(pairing)
    return Mixed(tuple(pairings), tuple(shares.values())) if len(pairings) > 1 else pairings[0]


OURS: Mapping[str, Callable[..., tuple[str, str] | str]] = {
    "best_worst": best_over_worst,
    "repaired": repaired_over_said,
    "equal_length": equally_long,
    "random": by_chance,
    "sft": best_over_worst,  # the same pairs, trained on otherwise
}


@hookimpl
def spr_pairing(name: str, config: SPRConfig) -> Pairing | None:
    """Ours."""
    if name not in OURS:
        return None
    return by_chance if name == "random" else functools.partial(OURS[name], min_gap=config.spr_min_gap)
