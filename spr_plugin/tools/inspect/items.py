"""What the page of a query or of its pair shows, as plain data, read from the logs when it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spr_plugin.errors import UserError
from spr_plugin.meanings import SCORE, meaning_of
from spr_plugin.pairing import PreferencePair, answer_of
from spr_plugin.recipes.base import Judged, JudgedAnswer, Mark, Query, unjudged
from spr_plugin.runs.log import Record
from spr_plugin.runs.moved import found
from spr_plugin.tools.inspect import pictures
from spr_plugin.tools.inspect.indexed import STRANGE, IndexedRound
from spr_plugin.tools.inspect.layers import KINDS, WIDTH, Drawn, drawn
from spr_plugin.tools.inspect.rows import Row
from spr_plugin.tools.inspect.texts import Part, Span, differing, parts

Both = tuple[Sequence[Mark], Sequence[Mark]]  # drawn for a text, and for the repaired one


@dataclass
class Text:
    """A text of an answer with its boxes; `compared` is False where it was too long for that."""

    kind: str
    title: str
    parts: list[Part]
    boxes: list[Drawn]
    score: str
    compared: bool = True


@dataclass
class Answer:
    """An answer as the model gave it and repaired.

    Attributes:
        number: from 1, in the page.
        sampled: the kind of prompt that drew it, and which of its answers this is.
        why: (what it keeps from happening, word, meaning) of each reason.
        terms: (name, meaning, as said, repaired).
        side: "chosen" or "rejected" where the pair took it, both words where it took it twice; or "".
    """

    id: str
    number: int
    sampled: str
    original: Text
    repaired: Text | None
    why: list[tuple[str, str, str]]
    terms: list[tuple[str, str, str, str]]
    side: str


@dataclass
class Item:
    """A query with all that was made of it.

    Attributes:
        pictures: for each its number, id, size, and trouble with its file.
        around: what is asked about, and the truth.
        sides: of the pair: the chosen text and the rejected one, and what they were before and after repair.
        terms: of the pair: (name, meaning, chosen, rejected).
        notes: lines about what could not be read.
    """

    row: Row
    question: str = ""
    task: str = ""
    pictures: list[dict[str, Any]] = field(default_factory=list)
    around: list[Drawn] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    sides: list[Text] = field(default_factory=list)
    terms: list[tuple[str, str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skip: tuple[str, str] | None = None

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of boxes that the page has, for its legend."""
        texts = [
            *self.sides,
            *(text for one in self.answers for text in (one.original, one.repaired) if text),
        ]
        there = {box.kind for boxes in (self.around, *(text.boxes for text in texts)) for box in boxes}
        return {name: kind for name, kind in KINDS.items() if name in there}


class Reader:
    """Makes an item of a query's records; what cannot be read is noted, and the rest shown."""

    def __init__(self, one: IndexedRound, row: Row):
        self.one, self.images, self.item = one, one.run.images, Item(row)
        self.query = self._query()
        recipe = one.recipe.of(self.query) if one.recipe and self.query else one.recipe
        self.meanings: Mapping[str, str] = recipe.MEANINGS if recipe else {}
        self.sizes = (
            [(picture.width, picture.height) for picture in self.query.pictures] if self.query else []
        )

    def _query(self) -> Query | None:
        records = self.one.records("queries", self.item.row.id)
        read = self.one.recipe.read if self.one.recipe else Query.from_record
        try:
            query = read(records[0])
            if not all(side > 0 for picture in query.pictures for side in (picture.width, picture.height)):
                raise ValueError("a picture without pixels")
        except STRANGE as error:
            why = repr(error) if records else "its record is damaged, or gone"
            self.item.notes.append(f"The query cannot be read ({why}): its texts show without pictures.")
            return None
        self.item.task, self.item.question = query.task, self._question(query)
        self.item.pictures = [
            {
                "number": number,
                "id": picture.id,
                "width": picture.width,
                "height": picture.height,
                "view": f"0 0 {WIDTH:g} {WIDTH * picture.height / picture.width:.3f}",
                "there": found(picture.path, self.images) is not None,
                "trouble": pictures.trouble(picture, self.images),
            }
            for number, picture in enumerate(query.pictures)
        ]
        return query

    def _question(self, query: Query) -> str:
        """As it is asked; where nobody here can write its boxes, without them."""
        if self.one.recipe:
            with contextlib.suppress(*STRANGE):
                return self.one.recipe.question(query)
        return query.text

    def judged(self) -> tuple[list[str], Judged]:
        """Ids of the answers, and the answers: as they were judged, or as far as they were sampled."""
        for record in self.one.records("scores", self.item.row.id):
            try:
                answers = tuple(answer_of(row) for row in record["candidates"])
                return [str(row["id"]) for row in record["candidates"]], Judged(record["truth"], answers)
            except STRANGE as error:
                self.item.notes.append(f"The scores cannot be read ({error!r}).")
        sampled = self.one.records("candidates", self.item.row.id)
        texts = tuple(unjudged(str(record.get("text", ""))) for record in sampled)
        return [str(record["id"]) for record in sampled], Judged(None, texts)

    def marks(self, judged: Judged) -> list[Both]:
        """What the recipe draws of each answer; nothing where it cannot."""
        if self.query is not None and self.one.recipe is not None:
            try:
                return list(self.one.recipe.draw(self.query, judged))
            except STRANGE as error:
                self.item.notes.append(f"The boxes cannot be drawn ({error!r}).")
        return [((), ())] * len(judged.answers)

    def text(
        self,
        kind: str,
        title: str,
        text: str,
        marks: Sequence[Mark],
        score: float | None,
        other: str,
        prefix="",
    ) -> Text:
        """A text, whose words are marked that `other` does not have in their place."""
        boxes = drawn(marks, kind, self.sizes, prefix)
        differ = differing(text, other)
        spans: Iterable[tuple[Span, str]] = ((span, box.key) for box in boxes for span in box.spans)
        made = parts(text, spans, differ[0] if differ else ())
        return Text(kind, title, made, boxes, shown(score), differ is not None)

    def meaning(self, word: str) -> str:
        return meaning_of(word, self.meanings)

    def terms(self, left: Scored, right: Scored) -> list[tuple[str, str, str, str]]:
        """(name, meaning, left, right) of every term, S last."""
        one, other = ({**terms, **({} if score is None else {"S": score})} for terms, score in (left, right))
        names = sorted(dict.fromkeys([*one, *other]), key=lambda name: name == "S")
        meanings = {name: self.meaning(name) for name in names}
        if "S" in meanings:
            meanings["S"] = " ".join(filter(None, [meanings["S"] or SCORE, self._lambda(left[0], right[0])]))
        return [(name, meanings[name], shown(one.get(name)), shown(other.get(name))) for name in names]

    def _lambda(self, *terms: Mapping[str, float]) -> str:
        """The λ that makes S of such terms, in words; "" where none does, or nobody knows it."""
        run, recipe = self.one.run, self.one.recipe
        if recipe is None or "spr_lambda" not in run.config:
            return ""
        lam = run.flags.spr_lambda
        with contextlib.suppress(*STRANGE):
            if any(recipe.reweighed(each, lam) is not None for each in terms):
                return f"Here λ is {lam:g}."
        return ""

    def answer(
        self, number: int, id: str, sampled: str, one: JudgedAnswer, marks: Both, pair: Record
    ) -> Answer:
        prefix, judged = f"a{number}-", one.score is not None or one.reason is not None
        original = self.text(
            "said", "as the model said it", one.text, marks[0], one.score, one.repaired, prefix
        )
        repaired = None
        if judged and one.repaired != one.text:
            side = "repaired", one.repaired, marks[1], one.repaired_score, one.text
            repaired = self.text("repaired", *side, prefix)
        words = {"no score": one.reason, "not chosen": one.not_choosable, "not rejected": one.not_rejectable}
        blocked_by: dict[str, list[str]] = {}
        for what, word in words.items():
            blocked_by.setdefault(word or "", []).append(what)
        why = [(", ".join(what), word, self.meaning(word)) for word, what in blocked_by.items() if word]
        sides = [side for side in ("chosen", "rejected") if pair.get(f"{side}_candidate") == id]
        columns = (one.terms, one.score), (one.repaired_terms, one.repaired_score)
        return Answer(id, number, sampled, original, repaired, why, self.terms(*columns), " and ".join(sides))


Scored = tuple[Mapping[str, float], "float | None"]  # terms and score


def shown(value: float | None) -> str:
    """A number for people."""
    return "–" if value is None else f"{value:.3f}"


def query_item(one: IndexedRound, row: Row) -> Item:
    """A query with all of its answers."""
    reader = Reader(one, row)
    item, (ids, judged) = reader.item, reader.judged()
    marks = reader.marks(judged) or reader.marks(Judged(None, (unjudged(""),)))
    item.around = _around(reader, marks)
    kinds = {
        str(record["id"]): f"{record.get('kind', '')} {record.get('index', '')}".strip()
        for record in one.records("candidates", row.id)
    }
    pair = next(iter(one.records("pairs", row.id)), {})
    item.answers = [
        reader.answer(number, id, kinds.get(id, ""), answer, both, pair)
        for number, (id, answer, both) in enumerate(zip(ids, judged.answers, marks), 1)
    ]
    if row.skip:
        item.skip = row.skip, reader.meaning(row.skip)
    return item


def pair_item(one: IndexedRound, row: Row) -> Item:
    """A query's pair: chosen beside rejected, and where both come from."""
    reader = Reader(one, row)
    item, (ids, judged) = reader.item, reader.judged()
    try:
        pair = PreferencePair.from_record(one.records("pairs", row.id)[0])
    except STRANGE as error:
        raise UserError(f"pair {row.pair} cannot be read by this version ({error!r})") from None
    item.question = pair.prompt
    if pair.id in one.run.excluded:
        item.notes.append("The run did not train on this pair: --spr_exclude_pairs named it.")
    marks = reader.marks(judged)
    known = {id: (answer, both) for id, answer, both in zip(ids, judged.answers, marks)}
    best, best_marks = known.get(pair.chosen_candidate) or _alone(reader, pair.chosen)
    worst, worst_marks = known.get(pair.rejected_candidate) or _alone(reader, pair.rejected)
    item.around = _around(reader, marks or [best_marks])
    item.sides = [
        reader.text("chosen", "chosen", pair.chosen, best_marks[1], pair.chosen_score, pair.rejected),
        reader.text("rejected", "rejected", pair.rejected, worst_marks[0], pair.rejected_score, pair.chosen),
    ]
    if best.text != pair.chosen:
        words = "the chosen one as the model said it", best.text, best_marks[0], best.score, pair.chosen
        item.sides.append(reader.text("said", *words))
    if worst.repaired != pair.rejected:
        words = (
            "the rejected one, repaired",
            worst.repaired,
            worst_marks[1],
            worst.repaired_score,
            pair.rejected,
        )
        item.sides.append(reader.text("repaired", *words))
    item.terms = reader.terms((best.repaired_terms, pair.chosen_score), (worst.terms, pair.rejected_score))
    return item


def _alone(reader: Reader, text: str) -> tuple[JudgedAnswer, Both]:
    """A text whose scores are gone."""
    answer = unjudged(text)
    (marks,) = reader.marks(Judged(None, (answer,)))
    return answer, marks


def _around(reader: Reader, marks: Sequence[Both]) -> list[Drawn]:
    return drawn(marks[0][0], "", reader.sizes, written=False) if marks else []
