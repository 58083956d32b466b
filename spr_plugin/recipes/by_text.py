"""What recipes share whose answers are judged by their words and the query's truth alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from spr_plugin.recipes.base import AnyQuery, Judged, JudgedAnswer, Prompt, Query, Recipe, unjudged

OPEN, CLOSE = "<think>", "</think>"


class ByText(Recipe[AnyQuery]):
    """A recipe that looks at no picture to judge; an answer without words has no score."""

    @abstractmethod
    def judged(self, query: AnyQuery, texts: Sequence[str]) -> Iterable[JudgedAnswer]:
        """What all answers to a query are worth that have words, in their order."""

    def judge(
        self,
        pictures: Sequence[Image.Image],
        queries: Sequence[AnyQuery],
        texts: Sequence[Sequence[str]],
        pooled: bool = True,
    ) -> list[Judged]:
        """Truths are those of the queries, `pooled` or not."""
        return [Judged(query.truth, self._judged(query, row)) for query, row in zip(queries, texts)]

    def _judged(self, query: AnyQuery, texts: Sequence[str]) -> tuple[JudgedAnswer, ...]:
        worded = iter(self.judged(query, [text for text in texts if text.strip()]))
        return tuple(next(worded) if text.strip() else unjudged(text, "empty") for text in texts)


class Worth(NamedTuple):
    """What an answer earns; its terms lie between 0 and 1."""

    exact: float
    format: float
    total: float


class RightOrWrong(ByText[Query]):
    """A recipe whose questions have one right answer, ``truth["answer"]``, for a reason, ``truth["why"]``.

    Right answers may be chosen, wrong ones rejected; where there is one kind alone, that is why there is no
    pair. Nothing is repaired: to write the truth into an answer would be SFT in disguise.
    """

    BEST = "exact"
    WATCHED = {"format": 0.2}
    thinks = True

    @abstractmethod
    def answer_in(self, text: str) -> str | None:
        """The answer that a text gives, or None where it gives none."""

    @abstractmethod
    def worth(self, text: str, query: Query) -> Worth:
        """What a text earns as answer to a query."""

    @abstractmethod
    def written(self, why: str, answer: str) -> str:
        """A text that gives this answer in the form that earns all."""

    def is_right(self, text: str, query: Query) -> bool:
        """Whether a text gives the right answer, in whatever form."""
        return bool(self.answer_in(text) == query.truth["answer"])

    def prompts(self, query: Query) -> list[Prompt]:
        return [Prompt("plain", query.text)]

    def enough(self, query: Query, texts: Sequence[str]) -> bool:
        """Whether some are right and some wrong."""
        return len({self.is_right(text, query) for text in texts}) == 2

    def judged(self, query: Query, texts: Sequence[str]) -> Iterator[JudgedAnswer]:
        right = [self.is_right(text, query) for text in texts]
        rejected = "wrong" if any(right) else "all_wrong"
        chosen = "all_right" if all(right) else "right"
        for text, is_right in zip(texts, right):
            *terms, total = self.worth(text, query)
            named = dict(zip(Worth._fields, terms))
            reasons = (None, chosen) if is_right else (rejected, None)
            yield JudgedAnswer(text, named, total, None, text, named, total, *reasons)

    def measure(self, texts: Sequence[str], queries: Sequence[Query]) -> dict[str, float]:
        """Share of right answers, of well-formed ones, and the mean reward."""
        asked = list(zip(texts, queries))
        worth = [self.worth(*one) for one in asked]
        return {
            "exact": sum(self.is_right(*one) for one in asked) / len(asked),
            "format": sum(one.format for one in worth) / len(asked),
            "reward": sum(one.total for one in worth) / len(asked),
        }

    def worked(self, query: Query, short: bool = False) -> str:
        """A right answer with its reason, or with none but a word."""
        return self.written("So." if short else query.truth["why"], query.truth["answer"])


# What the words of `RightOrWrong` mean.
MEANINGS = {
    "wrong": "The answer is wrong, and is never chosen.",
    "right": "The answer is right, and is never rejected.",
    "all_wrong": "All answers to the question are wrong: there is none to choose.",
    "all_right": "All answers to the question are right: there is none to reject.",
    "asked_already": "The same question about the same pictures was made before.",
}
