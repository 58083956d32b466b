"""Several recipes in one command, as one: each query goes its own recipe's way, and no stage knows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.progress import listed
from spr_plugin.recipes.base import Judged, Mark, Prompt, Query, Recipe, Source

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
BEST = "best"
MEANING = "Mean over the held-out queries of what each one's recipe follows"


@dataclass(frozen=True)
class Routed(Query):
    """A query of one of several recipes.

    Attributes:
        recipe: that one's name.
        own: the query as that recipe knows it.
    """

    recipe: str
    own: Query

    def to_record(self) -> dict[str, Any]:
        return {**self.own.to_record(), "recipe": self.recipe}


def routed(own: Query, recipe: str) -> Routed:
    """A recipe's query."""
    shared = (own.id, own.pictures, own.text, own.truth, own.task, own.seed)
    return Routed(*shared, recipe=recipe, own=own)


@dataclass(frozen=True)
class RecordsOf:
    """The records of one recipe, gone through as often as wanted: they stay on disk."""

    records: Iterable[Mapping[str, Any]]
    recipe: str

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (record for record in self.records if record["recipe"] == self.recipe)


class Several(Recipe[Routed]):
    """What each of its recipes asks.

    Values of `measure` are called ``RECIPE/VALUE``; ``best``, which keep-best follows, is the mean over the
    queries of each one's recipe's.
    """

    BEST = BEST

    def __init__(self, recipes: Iterable[Recipe[Any]]):
        self.recipes = {recipe.name: recipe for recipe in recipes}
        each = self.recipes.values()
        self.name = " ".join(self.recipes)
        self.again = max(recipe.again for recipe in each)
        self.thinks = any(recipe.thinks for recipe in each)
        self.learned = "; ".join(recipe.learned for recipe in each if recipe.learned)
        self.WATCHED = {
            f"{name}/{value}": least
            for name, recipe in self.recipes.items()
            for value, least in recipe.WATCHED.items()
        }
        self.MEANINGS = self._meanings()

    def _meanings(self) -> dict[str, str]:
        """Of all; a word that two recipes use is explained by each."""
        by_word: dict[str, dict[str, str]] = {}
        for name, recipe in self.recipes.items():
            for word, sentence in recipe.MEANINGS.items():
                by_word.setdefault(word, {}).setdefault(sentence, name)
        follows = ", ".join(f"{recipe.BEST} ({name})" for name, recipe in self.recipes.items())
        meanings = {BEST: f"{MEANING}: {follows}."}
        for word, sentences in by_word.items():
            several = len(sentences) > 1
            each = (f"{name}: {one}" if several else one for one, name in sentences.items())
            meanings[word] = " ".join(each)
        return meanings

    def of(self, query: Routed) -> Recipe[Any]:
        return self.recipes[query.recipe]

    def after(self, answers: Iterable[tuple[Routed, str, str]]) -> Several:
        each: dict[str, list[tuple[Query, str, str]]] = {name: [] for name in self.recipes}
        for query, kind, text in answers:
            each[query.recipe].append((query.own, kind, text))
        return Several(recipe.after(each[name]) for name, recipe in self.recipes.items())

    def summary(self, records: Iterable[Mapping[str, Any]]) -> list[str]:
        each = self.recipes.items()
        return [piece for name, recipe in each for piece in recipe.summary(RecordsOf(records, name))]

    def on(self, device: str | torch.device) -> Several:
        return Several(recipe.on(device) for recipe in self.recipes.values())

    # --- asking

    def queries(self, source: Source) -> list[Routed]:
        """All of the first recipe, all of the second, and so on. UserError where one has none."""
        queries: dict[str, Routed] = {}
        for name, recipe in self.recipes.items():
            given = [routed(own, name) for own in recipe.queries(source)]
            if not given:
                why = listed(source.skipped) or "its source is empty, or too small"
                raise UserError(f"--spr_recipe {name} makes no query of what it is given ({why})")
            if twice := queries.keys() & {query.id for query in given}:
                raise UserError(f"--spr_recipe {self.name}: two of them give a query of the id {min(twice)}")
            queries |= {query.id: query for query in given}
        return list(queries.values())

    def prompts(self, query: Routed) -> list[Prompt]:
        return self.of(query).prompts(query.own)

    def question(self, query: Routed) -> str:
        return self.of(query).question(query.own)

    def restated(self, raw: str, prompt: Prompt, query: Routed) -> str:
        return self.of(query).restated(raw, prompt, query.own)

    def enough(self, query: Routed, texts: Sequence[str]) -> bool:
        return self.of(query).enough(query.own, texts)

    def read(self, record: Mapping[str, Any]) -> Routed:
        recipe = self.recipes[record["recipe"]]
        return routed(recipe.read(record), recipe.name)

    # --- judging

    def judge(
        self,
        pictures: Sequence[Image.Image],
        queries: Sequence[Routed],
        texts: Sequence[Sequence[str]],
        pooled: bool = True,
    ) -> list[Judged]:
        def judged(recipe: Recipe[Any], own: list[Query], answers: list[Sequence[str]]) -> list[Judged]:
            return recipe.judge(pictures, own, answers, pooled)

        return self._by_recipe(queries, texts, judged)

    def measure(self, texts: Sequence[str], queries: Sequence[Routed]) -> dict[str, float]:
        values: dict[str, float] = {}

        def measured(recipe: Recipe[Any], own: list[Query], answers: list[str]) -> list[float]:
            made = recipe.measure(answers, own)
            values.update({f"{recipe.name}/{name}": value for name, value in made.items()})
            return [made[recipe.BEST]] * len(own)

        best = self._by_recipe(queries, texts, measured)
        return {**values, BEST: sum(best) / len(best)}

    def watched(self, queries: Sequence[Routed]) -> dict[str, float]:
        """Each recipe's, as far as its own queries tell."""
        return {
            f"{name}/{value}": least
            for name, recipe in self.recipes.items()
            for value, least in recipe.watched([one.own for one in queries if one.recipe == name]).items()
        }

    def _by_recipe(
        self,
        queries: Sequence[Routed],
        texts: Sequence[Any],
        make: Callable[[Recipe[Any], list[Query], list[Any]], Sequence[T]],
    ) -> list[T]:
        """What `make` gives for each query, in their order; it is called once for all of a recipe."""
        made: dict[int, T] = {}
        for name, recipe in self.recipes.items():
            numbers = [number for number, query in enumerate(queries) if query.recipe == name]
            if numbers:
                own, answers = [queries[n].own for n in numbers], [texts[n] for n in numbers]
                made |= zip(numbers, make(recipe, own, answers))
        return [made[number] for number in range(len(queries))]

    # --- showing

    def draw(self, query: Routed, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        return self.of(query).draw(query.own, judged)

    def facets(self, query: Routed) -> Mapping[str, Sequence[str]]:
        return self.of(query).facets(query.own)

    def reweighed(self, terms: Mapping[str, float], lam: float) -> float | None:
        """By the one that knows these terms."""
        known = (recipe.reweighed(terms, lam) for recipe in self.recipes.values())
        return next((score for score in known if score is not None), None)

    def worked(self, query: Routed, short: bool = False) -> str | None:
        return self.of(query).worked(query.own, short)
