"""What is kept of each query to list, filter and sort by: names and numbers, no text of an answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spr_plugin.recipes.base import Recipe
from spr_plugin.runs.log import Record

STATES = ("pair", "skipped", "judged", "answered", "asked")  # how far a query is, the furthest first


@dataclass(slots=True)
class Row:
    """A query as a list shows it.

    Attributes:
        round: from 1.
        picture: id of the first one.
        categories, sizes: of its true objects, as the recipe calls them, each once.
        answers: how many were sampled.
        reasons: why it has no pair, and why answers of it have no score or may not be chosen.
        best: the highest score of an answer, repaired or not.
        pair: the pair's id; `chosen` and `rejected` are its scores.
        skip: the word why there is none.
    """

    id: str
    round: int
    recipe: str = ""
    picture: str = ""
    categories: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    answers: int = 0
    judged: bool = False
    reasons: frozenset[str] = frozenset()
    best: float | None = None
    pair: str | None = None
    chosen: float | None = None
    rejected: float | None = None
    skip: str | None = None

    @property
    def state(self) -> str:
        """One of STATES."""
        reached = (self.pair, self.skip, self.judged, self.answers)
        return next((state for state, one in zip(STATES, reached) if one), STATES[-1])

    @property
    def gap(self) -> float | None:
        """By how much the chosen answer's score is above the rejected one's."""
        return None if self.chosen is None or self.rejected is None else self.chosen - self.rejected

    @property
    def score(self) -> float | None:
        """The chosen answer's, or the best one where there is no pair."""
        return self.best if self.chosen is None else self.chosen


# --- what a record adds to a query's row; those of another form than ours raise what Python does


def asked(row: Row, record: Record, recipe: Recipe[Any] | None) -> None:
    """Of the log of queries."""
    row.recipe, row.picture = sys.intern(str(record["recipe"])), str(record["pictures"][0]["id"])
    if recipe is not None:
        about = recipe.facets(recipe.read(record))
        row.categories, row.sizes = (
            tuple(dict.fromkeys(map(sys.intern, about.get(name, ())))) for name in ("category", "size")
        )


def answered(row: Row, record: Record, recipe: Recipe[Any] | None) -> None:
    row.answers += 1


def judged(row: Row, record: Record, recipe: Recipe[Any] | None) -> None:
    answers = record["candidates"]
    words = {answer[name] for answer in answers for name in ("reason", "not_choosable")}
    scores = [answer[name] for answer in answers for name in ("score", "repaired_score")]
    row.judged, row.best = True, max((float(score) for score in scores if score is not None), default=None)
    row.reasons |= {sys.intern(str(word)) for word in words if word}


def paired(row: Row, record: Record, recipe: Recipe[Any] | None) -> None:
    if "skip" in record:
        row.skip = sys.intern(str(record["skip"]))
        row.reasons |= {row.skip}
    else:
        row.chosen, row.rejected = float(record["chosen_score"]), float(record["rejected_score"])
        row.pair = str(record["id"])


# Log → the key that names the query, and what a record of it adds. In this order.
FOLDED: Mapping[str, tuple[str, Callable[[Row, Record, Recipe[Any] | None], None]]] = {
    "queries": ("id", asked),
    "candidates": ("query", answered),
    "scores": ("id", judged),
    "pairs": ("query", paired),
}
