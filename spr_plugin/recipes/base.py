"""What a recipe is: what is asked about pictures, and what a good answer is.

    picture → Query → answer → Judged → pair → policy

A recipe is plain functions on plain data. It knows no trainer, no model in training, no file of a run; those
know of a recipe no more than what stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from PIL import Image

from spr_plugin.data.pictures import MadePicture, Picture, picture_of

if TYPE_CHECKING:
    import torch

# The reason of a text that tries to be an answer and cannot be read as one.
UNREADABLE = "unparsable"
MOST_PICTURES = 5  # of a query
ENOUGH = 4  # fewer answers say nothing about a collapse


@dataclass(frozen=True)
class Query:
    """A question about pictures.

    Attributes:
        id: hash of all that makes the question; the same on every machine.
        pictures: one to five, in the order in which they are shown.
        text: the question. A recipe whose questions hold boxes writes them in the model's own words when it
            is asked for prompts.
        truth: what answers are measured by, in a form of the recipe's own that JSON can hold.
        task: which of the recipe's tasks this is.
        seed: for whatever is random about this query later on.
    """

    id: str
    pictures: tuple[Picture, ...]
    text: str
    truth: Any
    task: str
    seed: int

    @property
    def sources(self) -> tuple[str | MadePicture, ...]:
        """What the pictures are opened by; queries of equal ones show the same."""
        return tuple(picture.source for picture in self.pictures)

    def to_record(self) -> dict[str, Any]:
        """Plain data for a log; `from_record` reads it back."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Query:
        """The query that `to_record` wrote."""
        pictures = tuple(map(picture_of, record["pictures"]))
        return cls(record["id"], pictures, *(record[name] for name in ("text", "truth", "task", "seed")))


@dataclass(frozen=True)
class Prompt:
    """One way to put a query to the model.

    Attributes:
        kind: names it among the query's prompts.
        text: without any picture placeholder.
        crop: (x1, y1, x2, y2) in whole pixels of the first picture, which alone is cut out and shown; None
            for all pictures, whole.
    """

    kind: str
    text: str
    crop: tuple[int, int, int, int] | None = None

    def shown(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """What of a query's pictures this prompt shows."""
        return [pictures[0].crop(self.crop)] if self.crop else list(pictures)


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer with what it is worth, as the model gave it and repaired.

    Attributes:
        text: the answer.
        terms: parts of the score by name; empty where there is no score.
        score: higher is better; None where there is none.
        reason: a word why there is none, or None.
        repaired: the text after repair; the text itself where the recipe repairs nothing.
        repaired_terms, repaired_score: as above, of the repaired text.
        not_choosable: a word why the repaired text may not be chosen, whatever its score; None where it may.
        not_rejectable: a word why the text may not be rejected; None where it may.
    """

    text: str
    terms: Mapping[str, float]
    score: float | None
    reason: str | None
    repaired: str
    repaired_terms: Mapping[str, float]
    repaired_score: float | None
    not_choosable: str | None
    not_rejectable: str | None


def unjudged(text: str, why: str | None = None) -> JudgedAnswer:
    """An answer without a score, which can be neither chosen nor rejected, and the word why; None for one
    that nobody has judged, to be drawn.
    """
    return JudgedAnswer(text, {}, None, why, text, {}, None, why, why)


@dataclass(frozen=True)
class Judged:
    """The answers to one query.

    Attributes:
        truth: what they were measured by, plain data: the annotations' and whatever the recipe added to them.
        answers: in the order of the texts.
    """

    truth: Any
    answers: tuple[JudgedAnswer, ...]


@dataclass(frozen=True)
class Mark:
    """A box to be drawn.

    Attributes:
        kind: names how it is drawn: "region" (what is asked about), "truth", "detector" (truth that a
            detector gave) or "written" (by the text that is drawn); another one is drawn as a region.
        xyxy: corners in pixels of the picture.
        picture: the number of that picture among the query's.
        name: what the text, an annotation or the detector calls it; "" where nobody does.
        spans: (start, end) of the parts of the text that speak of it: its name, its coordinates.
    """

    kind: str
    xyxy: tuple[float, float, float, float]
    picture: int = 0
    name: str = ""
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Source:
    """Where queries may come from beside the flags.

    Attributes:
        data_path: the host's training data in LLaVA's form, or None.
        image_folder: of the pictures, or None.
        most_pictures: how many pictures one question may show.
        skipped: counts what is left out, by reason.
    """

    data_path: str | None = None
    image_folder: str | None = None
    most_pictures: int = 1
    skipped: Counter[str] = field(default_factory=Counter)


AnyQuery = TypeVar("AnyQuery", bound=Query)


class Recipe(ABC, Generic[AnyQuery]):
    """What is asked and what a good answer is. From the hook ``spr_recipe``.

    ``Recipe[MyQuery]`` is one whose queries are of a class of its own: it gets back those that it gave.

    Attributes:
        name: by which ``--spr_recipe`` and the records of a run name it.
        MEANINGS: word → what it means, in a sentence for whoever looks at a run: the terms of its scores and
            the reasons that it gives. What all recipes share is known (`spr_plugin.meanings`).
        BEST: the value of `measure` that ``--spr_keep_best`` follows.
        WATCHED: value of `measure` → the least it must be at the entry for a fall below ``--spr_collapse`` of
            it to mean that the model stops answering: a share of a few right answers is too coarse to tell.
        again: how many times more a query is sampled whose answers are not `enough`.
        thinks: what stands between <think> and </think> belongs to an answer; a server's is else cut off.
        learned: what `after` found, for a person, or "".
    """

    name: str
    BEST: str
    WATCHED: Mapping[str, float]
    again: int = 0
    thinks: bool = False
    MEANINGS: Mapping[str, str] = {}
    learned: str = ""

    def of(self, query: AnyQuery) -> Recipe[Any]:
        """The recipe that a query of this one's is of: itself, but where several are one
        (:mod:`spr_plugin.recipes.several`).
        """
        return self

    def watched(self, queries: Sequence[AnyQuery]) -> Mapping[str, float]:
        """Of WATCHED what the answers to these queries tell a collapse by."""
        return self.WATCHED if len(queries) >= ENOUGH else {}

    def after(self, answers: Iterable[tuple[AnyQuery, str, str]]) -> Recipe[AnyQuery]:
        """This recipe with what all answers of a run tell about its model, before any of them is judged; the
        same on every rank. What it tells is said by `learned`.

        Args:
            answers: query, kind of its prompt, text.
        """
        return self

    def on(self, device: str | torch.device) -> Recipe[AnyQuery]:
        """This recipe with all that judging needs loaded on a device. One with "cpu" is made, and let go of,
        before anything trains: what is wrong is raised then. UserError names the flag."""
        return self

    def summary(self, records: Iterable[Mapping[str, Any]]) -> list[str]:
        """What a run's summary tells of its judged answers, in pieces of a line; by rank 0, which reads the
        `records` of scores as often as it is asked to. UserError where no pair should be made of them.
        """
        return []

    @abstractmethod
    def queries(self, source: Source) -> Iterable[AnyQuery]:
        """The queries of a run, the same on every machine. UserError where the source gives none."""

    @abstractmethod
    def prompts(self, query: AnyQuery) -> list[Prompt]:
        """The prompts that are sampled, of different kinds."""

    def question(self, query: AnyQuery) -> str:
        """The text that all answers of a query are answers to, whatever prompt drew them: the one that a pair
        keeps.
        """
        return query.text

    def restated(self, raw: str, prompt: Prompt, query: AnyQuery) -> str:
        """An answer to `prompt` as an answer to the query's `question`."""
        return raw

    def enough(self, query: AnyQuery, texts: Sequence[str]) -> bool:
        """Whether a pair may come of these answers, so that none more are asked for. No model helps."""
        return True

    @abstractmethod
    def judge(
        self,
        pictures: Sequence[Image.Image],
        queries: Sequence[AnyQuery],
        texts: Sequence[Sequence[str]],
        pooled: bool = True,
    ) -> list[Judged]:
        """What each query's answers are worth.

        Args:
            pictures: those that all these queries show, so that a model of the recipe's looks at them once.
            texts: answers to each query.
            pooled: the truth of a query may grow by what its own answers name, so that they are comparable
                with each other. Without, an answer's score depends on nothing but itself.
        """

    @abstractmethod
    def measure(self, texts: Sequence[str], queries: Sequence[AnyQuery]) -> dict[str, float]:
        """Means over one answer a query, by name, 0 or more and higher is better, with no model's help.

        BEST and WATCHED are among them.
        """

    def put(self, question: str, width: int, height: int) -> str:
        """Somebody else's question, about a picture of so many pixels, as this recipe puts its own: a model
        that was trained on these answers worse where it is asked otherwise.
        """
        return question

    def answer_in(self, text: str) -> str | None:
        """The answer alone that a text gives, or None where it is not in this recipe's form."""
        return text

    def read(self, record: Mapping[str, Any]) -> Query:
        """The query of a record."""
        return Query.from_record(record)

    def draw(self, query: AnyQuery, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        """For each answer what is drawn for its text and for the repaired one. A truth of None is the
        query's own; such answers were not judged, and hold their texts alone.
        """
        return [([], []) for _ in judged.answers]

    def facets(self, query: AnyQuery) -> Mapping[str, Sequence[str]]:
        """What a query is about, for whoever counts or filters: name of a facet → its values, such as
        ``{"category": ["cup"], "size": ["small"]}``; empty where the recipe has none.
        """
        return {}

    def reweighed(self, terms: Mapping[str, float], lam: float) -> float | None:
        """The score that these terms make with another λ, the weight between the parts of a score; None where
        there is no such weight.
        """
        return None

    def worked(self, query: AnyQuery, short: bool = False) -> str | None:
        """A good answer, or as much of one as still is an answer; None where the recipe cannot give one."""
        return None
