"""SpatialThinker as a recipe: questions with four options about scene graphs; an answer writes the graph of
what is asked about, thinks, and takes an option; it is paid for format, counts, option and boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from spr_plugin.boxes import Array
from spr_plugin.config import SPRConfig, own_settings
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.data.pictures import Picture, name_too_large
from spr_plugin.data.selection import Selection, excluded
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat, known_format
from spr_plugin.hookspecs import hookimpl
from spr_plugin.ids import digest
from spr_plugin.plugins import ask
from spr_plugin.progress import listed, say
from spr_plugin.recipes.base import UNREADABLE, Judged, JudgedAnswer, Mark, Prompt, Query, Source
from spr_plugin.recipes.by_text import ByText
from spr_plugin.recipes.spatial_thinker.answers import Answer, read, written
from spr_plugin.recipes.spatial_thinker.graph import Graph, Triple, graph_of, record_of
from spr_plugin.recipes.spatial_thinker.meanings import MEANINGS
from spr_plugin.recipes.spatial_thinker.pictures import GraphImage, GraphImages
from spr_plugin.recipes.spatial_thinker.prompts import Seen, option, prompt, seen, with_options
from spr_plugin.recipes.spatial_thinker.questions import Asked, questions
from spr_plugin.recipes.spatial_thinker.repair import Mended, mend
from spr_plugin.recipes.spatial_thinker.reward import Likeness, reward, same_name
from spr_plugin.recipes.spatial_thinker.rows import Row, read_rows
from spr_plugin.recipes.spatial_thinker.settings import ThinkerSettings
from spr_plugin.recipes.spr.regions import shuffled
from spr_plugin.settings import weighed

if TYPE_CHECKING:
    import torch


class SpatialThinker(ByText[Query]):
    """Scene graphs and answers.

    Args:
        config: the flags.
        box_format: by which the pixels of an answer are known; None to read and draw alone.
        likeness: of names; `on` loads it.
    """

    name = "spatial_thinker"
    MEANINGS = MEANINGS
    BEST = "reward"
    # Of the 16 that are looked at, so many that a fall is none of chance.
    WATCHED = {"format": 0.25, "reward": 0.1}

    def __init__(self, config: SPRConfig, box_format: BoxFormat | None, likeness: Likeness = same_name):
        self.config, self.box_format, self.likeness = config, box_format, likeness
        self.settings: ThinkerSettings = own_settings(config, ThinkerSettings)

    def on(self, device: str | torch.device) -> SpatialThinker:
        # An answer that is paired with itself needs no other.
        if self.config.spr_samples < 2 and {*weighed(self.config.spr_pairing)} != {"repaired"}:
            raise UserError("--spr_samples 1: a preference pair needs at least two answers to a question")
        if self.box_format is None:
            raise UserError(
                "--spr_box_format: name how the model writes boxes, which the answers' scenes hold"
            )
        if self.settings.names == "exact":
            return self
        model = ask("spr_similarity", config=self.config, device=device)
        likeness = getattr(model, "likeness", None)
        if likeness is None:
            raise UserError(
                f"--spr_clip {self.config.spr_clip}: no model that compares texts, which `names: clip` of"
                " spatial_thinker asks for"
            )
        return SpatialThinker(self.config, self.box_format, likeness)

    # --- asking

    def queries(self, source: Source) -> list[Query]:
        file, folder = self.settings.annotations or self.config.spr_annotations, source.image_folder or ""
        if file is None:
            raise UserError(
                "--spr_annotations: name the file of scene graphs that --spr_recipe spatial_thinker asks"
                " about"
            )
        config, skipped = self.config, source.skipped
        select = Selection(excluded(config.spr_exclude), config.spr_min_objects, config.spr_min_area)
        made = self._of_rows if file.endswith(".jsonl") else self._of_graphs
        # Of rows that say the same one is enough.
        queries = {
            query.id: query for query in islice(made(file, folder, select, skipped), config.spr_regions)
        }
        name_too_large(skipped, "--spr_max_pixels")
        select.tell()
        why = f" ({listed(skipped)})" if skipped else ""
        if not queries:
            raise UserError(
                f"--spr_annotations {file} gives no question{why or ': its pictures are too plain'}"
            )
        if len(queries) < config.spr_regions:
            asked = f"{len(queries)} questions are made of the {config.spr_regions} asked for"
            say(f"{asked}: {file} gives no more{why}")
        return list(queries.values())

    def _of_graphs(self, file: str, folder: str, select: Selection, skipped: Counter[str]) -> Iterator[Query]:
        images = GraphImages(file, folder, skipped)
        for image in shuffled(images, self.config.spr_seed):
            assert isinstance(image, GraphImage)
            if chosen := select(image, skipped):
                queries = list(self._about(chosen, images))
                skipped.update([] if queries else ["no_question"])
                yield from queries

    def _about(self, image: GraphImage, images: GraphImages) -> Iterator[Query]:
        seed = int(digest([self.config.spr_seed, image.id, self.name])[:8], 16)
        settings = self.settings
        all_asked = questions(image, settings.tasks, settings.per_picture, seed, images.some_name)
        for number, asked in enumerate(all_asked):
            options = [asked.right, *asked.wrong]
            Random(seed + number).shuffle(options)
            yield query_of(image, image.triples, asked, options, options.index(asked.right), seed)

    def _of_rows(self, file: str, folder: str, select: Selection, skipped: Counter[str]) -> Iterator[Query]:
        seed = self.config.spr_seed
        for row in read_rows(file, folder, seed, skipped):
            if image := select(row.image, skipped):
                yield query_of_row(row._replace(image=image), seed)

    def prompts(self, query: Query) -> list[Prompt]:
        return [Prompt("plain", self.question(query))]

    def question(self, query: Query) -> str:
        picture = query.pictures[0]
        return self.put(query.text, picture.width, picture.height)

    def put(self, question: str, width: int, height: int) -> str:
        view = self._view(width, height)
        return prompt(question, view.width, view.height)

    def answer_in(self, text: str) -> str | None:
        answer = read(text)
        return answer.option if answer else None

    def _seen(self, picture: Picture) -> Seen:
        return self._view(picture.width, picture.height)

    def _view(self, width: int, height: int) -> Seen:
        return seen(known_format(self.box_format), width, height)

    # --- judging

    def judged(self, query: Query, texts: Sequence[str]) -> Iterator[JudgedAnswer]:
        true = graph_of(query.truth["graph"])
        return (self._judged_one(query, true, text) for text in texts)

    def _judged_one(self, query: Query, true: Graph, text: str) -> JudgedAnswer:
        answer = read(text)
        terms, score = self._scored(query, true, answer, self.likeness)
        if answer is None:
            return JudgedAnswer(text, terms, score, None, text, terms, score, UNREADABLE, None)
        repaired, kept, dropped = text, 0, 0
        if self.config.spr_repair != "none":
            repaired, kept, dropped = self._mended(query, true, answer)
        again = (
            self._scored(query, true, read(repaired), self.likeness) if repaired != text else (terms, score)
        )
        why = self._not_choosable(again[0], kept, dropped)
        return JudgedAnswer(text, terms, score, None, repaired, *again, why, None)

    def _mended(self, query: Query, true: Graph, answer: Answer) -> Mended:
        names = answer.graph.names
        alike = self.likeness(names, true.names) if names and true.names else same_name(names, true.names)
        view, agree = self._seen(query.pictures[0]), alike >= self.config.spr_match_threshold
        return mend(answer, view.pixels(answer.graph.boxes), true.boxes, agree, view.steps)

    def _scored(
        self, query: Query, true: Graph, answer: Answer | None, likeness: Likeness
    ) -> tuple[dict[str, float], float]:
        picture = query.pictures[0]
        boxes: Array = np.zeros((0, 4))
        if answer is not None:
            boxes = self._seen(picture).pixels(answer.graph.boxes)
        size = picture.width, picture.height
        return reward(answer, true, query.truth["answer"], boxes, size, self.settings, likeness)

    def _not_choosable(self, terms: dict[str, float], kept: int, dropped: int) -> str | None:
        if self.settings.right_only and not terms["answer"]:
            return "wrong_answer"
        if dropped and not kept:
            return "no_box_survived"
        share = kept / (kept + dropped) if dropped else 1.0
        return "too_few_boxes_kept" if share < self.config.spr_min_kept else None

    def measure(self, texts: Sequence[str], queries: Sequence[Query]) -> dict[str, float]:
        """Shares of answers that keep to the format and that are right, mean of S and of R, with exact
        names.
        """
        sums = dict.fromkeys(("format", "answer", "scene", "reward"), 0.0)
        for text, query in zip(texts, queries):
            terms, score = self._scored(query, graph_of(query.truth["graph"]), read(text), same_name)
            for name in sums:
                sums[name] += score if name == "reward" else terms[name]
        return {name: value / len(texts) for name, value in sums.items()}

    # --- showing

    def draw(self, query: Query, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        """The true objects and the boxes that a text writes."""
        graph = graph_of(query.truth["graph"])
        true = [Mark("truth", tuple(box), name=name) for name, box in zip(graph.names, graph.boxes.tolist())]

        def drawn(text: str) -> list[Mark]:
            # A run that is opened where its box format's plugin is missing shows its texts without boxes.
            answer = read(text) if self.box_format else None
            if answer is None:
                return true
            boxes = self._seen(query.pictures[0]).pixels(answer.graph.boxes).tolist()
            own = zip(boxes, answer.graph.names, answer.places)
            return true + [Mark("written", tuple(box), name=name, spans=at) for box, name, at in own]

        return [(drawn(one.text), drawn(one.repaired)) for one in judged.answers]

    def worked(self, query: Query, short: bool = False) -> str:
        """The right answer with its whole graph, or with the first object of it."""
        true, view = graph_of(query.truth["graph"]), self._seen(query.pictures[0])
        most = 1 if short else len(true.ids)
        triples = () if short else true.triples
        scene = record_of(true.ids[:most], view.steps(true.boxes[:most]), triples)
        observed = f"I see {', '.join(true.names[:most]) or 'nothing'}."
        return written(observed, scene, query.truth["because"], query.truth["answer"])


def query_of(
    image: AnnotatedImage,
    triples: Iterable[Triple],
    asked: Asked,
    options: Sequence[str],
    right: int,
    seed: int,
) -> Query:
    """The query of a question; its truth is the right option, why, and the graph of what it is about, in
    pixels, whose ids count from 1.
    """
    by_id: dict[int | str, Annotation] = {one.id: one for one in image.annotations}
    about = [by_id[id] for id in asked.about]
    ids = {one.id: f"{one.label}.{number}" for number, one in enumerate(about, 1)}
    kept = [
        Triple(ids[one.subject], one.predicate, ids[one.object])
        for one in triples
        if one.subject in ids and one.object in ids
    ]
    graph = record_of(list(ids.values()), [one.box.xyxy for one in about], kept)
    truth = {"answer": option(right, options[right]), "because": asked.reason, "graph": graph}
    text = with_options(asked.text, options)
    id = digest([image.id, image.width, image.height, text, truth, seed])
    picture = Picture(image.id, image.path, image.width, image.height)
    return Query(id, (picture,), text, truth, asked.task, int(id[:8], 16))


def query_of_row(row: Row, seed: int) -> Query:
    """The query of a question that somebody has already."""
    about = tuple(one.id for one in row.image.annotations)
    right = row.options[row.right]
    asked = Asked(row.task, row.text, right, (), about, f"The answer is {right}.")
    return query_of(row.image, row.triples, asked, row.options, row.right, seed)


@hookimpl
def spr_recipe(name: str, config: SPRConfig, box_format: BoxFormat | None) -> SpatialThinker | None:
    """``--spr_recipe spatial_thinker``."""
    return SpatialThinker(config, box_format) if name == SpatialThinker.name else None
