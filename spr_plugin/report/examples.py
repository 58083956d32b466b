"""Which pairs and skipped queries a report shows, and what of them."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from spr_plugin.data.pictures import BadImage, MadePicture, open_image
from spr_plugin.drawing import overlay, shrunk
from spr_plugin.pairing import PreferencePair, answer_of
from spr_plugin.recipes.base import Judged, JudgedAnswer, Mark, Query, Recipe
from spr_plugin.report.figures import Record

EACH = 6  # of the best, the worst, some by chance, and of the queries without a pair
LONGEST = 1_600  # characters of a text that are shown, of any letters: printed, a pair fits on a page
PICTURES = 3_500_000  # bytes of all pictures of a page, as text

# Its name, and its data URI or why there is none; "lost": (reason, path, why) of its file.
Picture = dict[str, Any]


def some_pairs(pairs: Sequence[PreferencePair], seed: int) -> list[tuple[str, PreferencePair]]:
    """(why it is shown, pair): those with the largest gap between the scores, those with the smallest, and
    some of the rest by chance.
    """
    # The widest gap first: the difference is turned round.
    ranked = sorted(pairs, key=lambda pair: (pair.rejected_score - pair.chosen_score, pair.id))
    best, rest = ranked[:EACH], ranked[EACH:]
    worst, rest = rest[-EACH:][::-1], rest[:-EACH]
    chance = random.Random(seed).sample(rest, min(EACH, len(rest)))
    named = (("largest gap", best), ("smallest gap", worst), ("by chance", chance))
    return [(why, pair) for why, some in named for pair in some]


def some_skipped(skips: Mapping[str, str], seed: int) -> list[tuple[str, str]]:
    """(query's id, reason): of each reason one by chance, then a second one, until there are EACH."""
    by_reason: dict[str, list[str]] = {}
    for id in random.Random(seed).sample(sorted(skips), len(skips)):
        by_reason.setdefault(skips[id], []).append(id)
    turns = [(turn, reason, id) for reason, ids in by_reason.items() for turn, id in enumerate(ids[:EACH])]
    return [(id, reason) for _, reason, id in sorted(turns)[:EACH]]


class Shown:
    """Examples as plain data for a template.

    Args:
        recipe: says what is drawn; None draws nothing.
        picture: see :class:`Pictures`.
    """

    def __init__(self, recipe: Recipe[Any] | None, picture: Callable[[str | MadePicture, str], Picture]):
        self.recipe, self.picture = recipe, picture

    def pair(self, why: str, pair: PreferencePair, query: Query, record: Record) -> dict:
        """A pair with both of its sides."""
        drawn, answers = self._marks(query, record), answers_in(record)
        best, worst = pair.chosen_candidate, pair.rejected_candidate
        # What trains are the pair's own texts.
        chosen = replace(answers[best], repaired=pair.chosen)
        rejected = replace(answers[worst], text=pair.rejected)
        sides = [
            repaired("chosen", "chosen", chosen, drawn[best][1]),
            written("rejected", "rejected", rejected, drawn[worst][0]),
        ]
        gap = pair.chosen_score - pair.rejected_score
        return self._example(f"{why}: {gap:+.3f}", pair.id, pair.prompt, query, sides)

    def skipped(self, reason: str, prompt: str, query: Query, record: Record | None) -> dict:
        """A query without a pair: its best answer when repaired and its worst one, with what is wrong with
        them.
        """
        answers, sides = answers_in(record) if record else {}, []
        if record and answers:
            drawn = self._marks(query, record)
            best = max(answers, key=lambda id: _or_lowest(answers[id].repaired_score))
            worst = min(answers, key=lambda id: _or_lowest(answers[id].score))
            sides = [
                repaired("best, repaired", "chosen", answers[best], drawn[best][1]),
                written("worst", "rejected", answers[worst], drawn[worst][0]),
            ]
        return self._example(reason, query.id, prompt, query, sides)

    def _example(self, why: str, id: str, prompt: str, query: Query, sides: list[dict]) -> dict:
        pictures = [self.picture(picture.source, picture.id) for picture in query.pictures]
        sizes = [(picture.width, picture.height) for picture in query.pictures]
        return {
            "why": why,
            "id": id,
            "prompt": clipped(prompt),
            "pictures": pictures,
            "sizes": sizes,
            "sides": sides,
        }

    def _marks(self, query: Query, record: Record) -> dict[str, tuple[list[Mark], list[Mark]]]:
        """Candidate → what is drawn for its text and for the repaired one."""
        answers = answers_in(record)
        judged = Judged(record["truth"], tuple(answers.values()))
        marked = self.recipe.draw(query, judged) if self.recipe else [([], [])] * len(answers)
        return {id: (list(one), list(other)) for id, (one, other) in zip(answers, marked)}


def answers_in(record: Record) -> dict[str, JudgedAnswer]:
    """Candidate → its answer, in the record's order."""
    return {row["id"]: answer_of(row) for row in record["candidates"]}


def written(name: str, kind: str, answer: JudgedAnswer, marks: Sequence[Mark]) -> dict:
    """An answer of an example as it was given; `kind` says how its boxes are drawn."""
    return _side(name, kind, answer.text, answer.terms, answer.score, answer.reason, marks)


def repaired(name: str, kind: str, answer: JudgedAnswer, marks: Sequence[Mark]) -> dict:
    """The same repaired."""
    why = answer.reason or answer.not_choosable
    return _side(name, kind, answer.repaired, answer.repaired_terms, answer.repaired_score, why, marks)


def _side(
    name: str,
    kind: str,
    text: str,
    terms: Mapping[str, float],
    score: float | None,
    why: str | None,
    marks: Sequence[Mark],
) -> dict:
    return {
        "name": name,
        "kind": kind,
        "text": clipped(text),
        "terms": {term: f"{value:.3f}" for term, value in terms.items()},
        "score": None if score is None else f"{score:.3f}",
        "why": why,
        "marks": overlay(marks, kind),
    }


def _or_lowest(score: float | None) -> float:
    return float("-inf") if score is None else score


def clipped(text: str, most: int = LONGEST) -> str:
    """As much of a text as a page shows."""
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} … ({more} more characters)"


class Pictures:
    """``pictures(source, name)`` → a picture for a page, which has a size: what is over it is named alone."""

    def __init__(self, most: int = PICTURES):
        self.left = most

    def __call__(self, source: str | MadePicture, name: str) -> Picture:
        uri, why, lost = None, None, None
        if self.left <= 0:
            why = "left out, so that the page stays small"
        else:
            try:
                uri = data_uri(open_image(source, name))
                self.left -= len(uri)
            except BadImage as error:
                lost = error.reason, str(error.path), str(error.why)
                why = f"not shown: {error.path}: {error.why}"
        return {"name": name, "uri": uri, "why": why, "lost": lost}


def data_uri(image: Image.Image) -> str:
    """The picture, made small, as a data URI."""
    buffer = io.BytesIO()
    shrunk(image).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def examples_of(
    shown: Shown,
    queries: Mapping[str, Query],
    scores: Mapping[str, Record],
    pairs: Sequence[PreferencePair],
    skips: Mapping[str, str],
    question: Callable[[Query], str],
    seed: int,
) -> Iterator[dict]:
    """What a report shows, in its order; `question` tells what was asked where there is no pair to tell."""
    for why, pair in some_pairs(pairs, seed):
        yield shown.pair(why, pair, queries[pair.query], scores[pair.query])
    for id, reason in some_skipped({id: why for id, why in skips.items() if id in queries}, seed):
        query = queries[id]
        yield shown.skipped(reason, question(query), query, scores.get(id))
