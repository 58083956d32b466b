"""A plugin's recipe and its pairing, checked at every call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spr_plugin.data.pictures import Picture
from spr_plugin.foreign import Broken, Foreign, has, listed, number, of_kind, shown
from spr_plugin.recipes.base import MOST_PICTURES, Judged, JudgedAnswer, Mark, Prompt, Query, Recipe


class CheckedRecipe(Recipe):
    """A plugin's :class:`Recipe`."""

    def __init__(self, plugin, hook, given, arguments):
        self._foreign = Foreign(plugin, hook, given)
        with self._checking():
            of_kind(given, Recipe)
            has(given, Recipe.__annotations__)
            self.name = of_kind(given.name, str, "as name ")
            (wanted,) = arguments["config"].recipes()
            if self.name != wanted:
                raise Broken(f"gives the recipe {shown(self.name)} for {wanted}")
            self.BEST = of_kind(given.BEST, str, "as BEST ")
            watched = of_kind(given.WATCHED, Mapping, "as WATCHED ")
            self.WATCHED = {
                of_kind(name, str, "in WATCHED "): number(value, f"WATCHED[{name}]")
                for name, value in watched.items()
            }
            self.thinks = of_kind(given.thinks, bool, "as thinks ")
            self.again = of_kind(given.again, int, "as again ")
            if self.again < 0:
                raise Broken(f"gives again {self.again}, less than 0")
            meanings = of_kind(given.MEANINGS, Mapping, "as MEANINGS ")
            self.MEANINGS = {
                of_kind(word, str, "in MEANINGS "): of_kind(meaning, str, f"as MEANINGS[{shown(word)}] ")
                for word, meaning in meanings.items()
            }
        self.learned = given.learned
        self._given, self._as_asked = given, (plugin, hook, arguments)

    def _checking(self, method: str = ""):
        return self._foreign.checking(method)

    def on(self, device) -> Recipe:
        plugin, hook, arguments = self._as_asked
        with self._checking("on"):
            ready = of_kind(self._given.on(device), Recipe)
        return CheckedRecipe(plugin, hook, ready, arguments)

    def after(self, answers) -> Recipe:
        plugin, hook, arguments = self._as_asked
        with self._checking("after"):
            informed = of_kind(self._given.after(answers), Recipe)
            of_kind(informed.learned, str, "as learned ")
        return CheckedRecipe(plugin, hook, informed, arguments)

    def summary(self, records) -> list[str]:
        with self._checking("summary"):
            return [of_kind(piece, str) for piece in listed(self._given.summary(records))]

    def queries(self, source) -> list[Query]:
        with self._checking("queries"):
            queries, ids = listed(self._given.queries(source)), set()
            for query in queries:
                of_kind(query, Query)
                for name, kind in (
                    ("id", str),
                    ("text", str),
                    ("task", str),
                    ("seed", int),
                    ("pictures", tuple),
                ):
                    of_kind(getattr(query, name), kind, f"as {name} of the query {query.id} ")
                for picture in query.pictures:
                    of_kind(picture, Picture, f"among the pictures of {query.id} ")
                    for side in (picture.width, picture.height):
                        of_kind(side, int, f"as a side of {picture.path} ")
                if not 1 <= len(query.pictures) <= MOST_PICTURES:
                    raise Broken(
                        f"gives the query {query.id} with {len(query.pictures)} pictures, not one to five"
                    )
                if query.id in ids:
                    raise Broken(f"gives two queries of the id {query.id}")
                ids.add(query.id)
                again = self._given.read(json.loads(json.dumps(query.to_record())))
                if again != query:
                    raise Broken(f"gives the query {query.id}, which its record does not give back")
        return queries

    def prompts(self, query: Query) -> list[Prompt]:
        with self._checking("prompts"):
            prompts = [of_kind(prompt, Prompt) for prompt in listed(self._given.prompts(query))]
            kinds = [of_kind(prompt.kind, str, "as kind of a prompt ") for prompt in prompts]
            if not prompts or len(set(kinds)) < len(kinds):
                raise Broken(f"gives {len(prompts)} prompts of the kinds {', '.join(kinds)}")
            for prompt in prompts:
                of_kind(prompt.text, str, f"as text of the prompt {prompt.kind} ")
                if prompt.crop is not None:
                    _check_crop(prompt.crop, query.pictures[0])
        return prompts

    def question(self, query: Query) -> str:
        with self._checking("question"):
            return of_kind(self._given.question(query), str)

    def restated(self, raw: str, prompt: Prompt, query: Query) -> str:
        with self._checking("restated"):
            return of_kind(self._given.restated(raw, prompt, query), str)

    def enough(self, query: Query, texts) -> bool:
        with self._checking("enough"):
            return of_kind(self._given.enough(query, list(texts)), bool)

    def judge(self, pictures, queries, texts, pooled=True) -> list[Judged]:
        with self._checking("judge"):
            made = self._given.judge(list(pictures), list(queries), [list(row) for row in texts], pooled)
            return [_judged(one, row) for one, row in zip(listed(made, len(queries), "queries"), texts)]

    def measure(self, texts, queries) -> dict[str, float]:
        with self._checking("measure"):
            made = of_kind(self._given.measure(list(texts), list(queries)), Mapping)
            if missing := {self.BEST, *self.WATCHED} - made.keys():
                raise Broken(f"gives no {', '.join(sorted(missing))}")
            return {of_kind(name, str): number(value, name) for name, value in made.items()}

    def put(self, question: str, width: int, height: int) -> str:
        with self._checking("put"):
            return of_kind(self._given.put(question, width, height), str)

    def answer_in(self, text: str) -> str | None:
        with self._checking("answer_in"):
            return of_kind(self._given.answer_in(text), (str, type(None)))

    def read(self, record: Mapping) -> Query:
        with self._checking("read"):
            return of_kind(self._given.read(record), Query)

    def draw(self, query: Query, judged: Judged):
        with self._checking("draw"):
            drawn = listed(self._given.draw(query, judged), len(judged.answers), "answers")
            both = [listed(one, 2, "(of its text, of the repaired one)") for one in drawn]
            for mark in (mark for sides in both for marks in sides for mark in listed(marks)):
                _check_mark(mark, len(query.pictures))
            return both

    def facets(self, query: Query) -> dict[str, list[str]]:
        with self._checking("facets"):
            given = of_kind(self._given.facets(query), Mapping)
            for name, values in given.items():
                of_kind(name, str, "as name of a facet ")
                for value in listed(values):
                    of_kind(value, str, f"as a {name} ")
            return {name: list(values) for name, values in given.items()}

    def reweighed(self, terms, lam: float) -> float | None:
        with self._checking("reweighed"):
            made = self._given.reweighed(dict(terms), lam)
            return None if made is None else number(made, "as score ")

    def worked(self, query: Query, short: bool = False) -> str | None:
        with self._checking("worked"):
            return of_kind(self._given.worked(query, short), (str, type(None)))


def _check_crop(crop, picture: Picture) -> None:
    corners = [of_kind(value, int, "in a crop ") for value in listed(crop, 4, "corners of a crop")]
    x1, y1, x2, y2 = corners
    if not (0 <= x1 < x2 <= picture.width and 0 <= y1 < y2 <= picture.height):
        raise Broken(f"gives the crop {corners} of a picture of {picture.width} x {picture.height}")


def _check_mark(mark, pictures: int) -> None:
    of_kind(mark, Mark)
    of_kind(mark.kind, str, "as kind of a mark ")
    for value in listed(mark.xyxy, 4, "corners of a mark"):
        number(value, "a mark with")
    if not 0 <= of_kind(mark.picture, int, "as picture of a mark ") < pictures:
        raise Broken(f"gives a mark on the picture {mark.picture} of {pictures}")
    of_kind(mark.name, str, "as name of a mark ")
    for span in listed(mark.spans):
        for end in listed(span, 2, "ends of a span"):
            of_kind(end, int, "in a span of a mark ")


def _judged(one, texts) -> Judged:
    of_kind(one, Judged)
    try:
        json.dumps(one.truth, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"gives a truth that JSON cannot hold ({error})") from None
    answers = listed(one.answers, len(texts), "texts")
    return Judged(one.truth, tuple(_answer(answer, text) for answer, text in zip(answers, texts)))


def _answer(answer, text: str) -> JudgedAnswer:
    of_kind(answer, JudgedAnswer)
    if answer.text != text:
        raise Broken(f"gives {shown(answer.text)} as text of the answer {shown(text)}")
    of_kind(answer.repaired, str, "as repaired ")
    for name in ("reason", "not_choosable", "not_rejectable"):
        of_kind(getattr(answer, name), (str, type(None)), f"as {name} ")
    if (answer.score is None) != (answer.reason is not None):
        raise Broken(f"gives the score {answer.score} and the reason {answer.reason}: one of the two is None")
    if answer.repaired_score is None and answer.not_choosable is None:
        raise Broken("gives no repaired_score, and no reason in not_choosable")
    plain: dict[str, Any] = {}
    for side in ("", "repaired_"):
        score, terms = getattr(answer, f"{side}score"), getattr(answer, f"{side}terms")
        plain[f"{side}score"] = None if score is None else number(score, f"as {side}score")
        plain[f"{side}terms"] = {
            of_kind(name, str, "as name of a term "): number(value, f"the term {name}")
            for name, value in of_kind(terms, Mapping, f"as {side}terms ").items()
        }
    return replace(answer, **plain)


class CheckedPairing(Foreign):
    """A plugin's :class:`spr_plugin.pairing.Pairing`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, ["__call__"])

    def __call__(self, query, answers) -> tuple[str, str] | str:
        with self.checking():
            choice = self.given(query, dict(answers))
            if isinstance(choice, str):
                return choice
            best, worst = listed(of_kind(choice, (tuple, list)), 2, "(chosen, rejected)")
            for id in (best, worst):
                if id not in answers:
                    raise Broken(f"gives {shown(id)}, which is no candidate's id")
            for what, score in (("chosen", answers[best].repaired_score), ("rejected", answers[worst].score)):
                if score is None or not math.isfinite(score):
                    raise Broken(f"gives a {what} candidate that has no score")
            if why := answers[best].not_choosable or answers[worst].not_rejectable:
                raise Broken(f"gives a candidate that may not be taken ({why})")
        return best, worst
