"""A plugin's recipe and its pairing, checked at every call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from spr_plugin.foreign import Broken, Foreign, has, listed, number, of_kind, shown
from spr_plugin.recipes.base import Judged, JudgedAnswer, Prompt, Query, Recipe


class CheckedRecipe(Recipe):
    """A plugin's :class:`Recipe`."""

    def __init__(self, plugin, hook, given, arguments):
        self._foreign = Foreign(plugin, hook, given)
        with self._checking():
            of_kind(given, Recipe)
            has(given, Recipe.__annotations__)
            self.name = of_kind(given.name, str, "as name ")
            self.BEST = of_kind(given.BEST, str, "as BEST ")
            watched = of_kind(given.WATCHED, Mapping, "as WATCHED ")
            self.WATCHED = {
                of_kind(name, str, "in WATCHED "): number(value, f"WATCHED[{name}]")
                for name, value in watched.items()
            }
        self._given, self._as_asked = given, (plugin, hook, arguments)

    def _checking(self, method: str = ""):
        return self._foreign.checking(method)

    def on(self, device) -> Recipe:
        plugin, hook, arguments = self._as_asked
        with self._checking("on"):
            ready = self._given.on(device)
        return CheckedRecipe(plugin, hook, ready, arguments)

    def queries(self, source) -> list[Query]:
        with self._checking("queries"):
            queries, ids = listed(self._given.queries(source)), set()
            for query in queries:
                of_kind(query, Query)
                if not 1 <= len(query.pictures) <= 5:
                    raise Broken(
                        f"gives the query {query.id} with {len(query.pictures)} pictures, not one to five"
                    )
                if query.id in ids:
                    raise Broken(f"gives two queries of the id {query.id}")
                ids.add(query.id)
                of_kind(query.seed, int, f"as seed of {query.id} ")
                again = self._given.read(json.loads(json.dumps(query.to_record())))
                if again != query:
                    raise Broken(f"gives the query {query.id}, which its record does not give back")
        return queries

    def prompts(self, query: Query) -> list[Prompt]:
        with self._checking("prompts"):
            prompts = [of_kind(prompt, Prompt) for prompt in listed(self._given.prompts(query))]
            kinds = [prompt.kind for prompt in prompts]
            if not prompts or len(set(kinds)) < len(kinds):
                raise Broken(f"gives {len(prompts)} prompts of the kinds {', '.join(map(str, kinds))}")
        return prompts

    def question(self, query: Query) -> str:
        with self._checking("question"):
            return of_kind(self._given.question(query), str)

    def restated(self, raw: str, prompt: Prompt, query: Query) -> str:
        with self._checking("restated"):
            return of_kind(self._given.restated(raw, prompt, query), str)

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

    def read(self, record: Mapping) -> Query:
        with self._checking("read"):
            return of_kind(self._given.read(record), Query)

    def draw(self, query: Query, judged: Judged):
        with self._checking("draw"):
            return listed(self._given.draw(query, judged), len(judged.answers), "answers")

    def worked(self, query: Query, short: bool = False) -> str | None:
        with self._checking("worked"):
            return of_kind(self._given.worked(query, short), (str, type(None)))


def _judged(one, texts) -> Judged:
    of_kind(one, Judged)
    try:
        json.dumps(one.truth)
    except TypeError as error:
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
    for side in ("", "repaired_"):
        score, terms = getattr(answer, f"{side}score"), getattr(answer, f"{side}terms")
        if score is not None:
            number(score, f"as {side}score")
        for name, value in of_kind(terms, Mapping, f"as {side}terms ").items():
            number(value, f"the term {name}")
    return answer


class CheckedPairing(Foreign):
    """A plugin's :class:`spr_plugin.pairing.Pairing`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, ["__call__"])

    def __call__(self, query, answers) -> tuple[str, str] | str:
        with self.checking():
            found = self.given(query, dict(answers))
            if isinstance(found, str):
                return found
            best, worst = listed(found, 2, "(chosen, rejected)")
            for id in (best, worst):
                if id not in answers:
                    raise Broken(f"gives {shown(id)}, which is no candidate's id")
            for what, score in (("chosen", answers[best].repaired_score), ("rejected", answers[worst].score)):
                if score is None or not math.isfinite(score):
                    raise Broken(f"gives a {what} candidate that has no score")
        return best, worst
