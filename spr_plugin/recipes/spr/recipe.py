"""SPR as a recipe: regions are asked about; answers are scored, repaired, and scored again."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spr_plugin.boxes import Box
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import usable
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat, Parsed, known_format
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import ask
from spr_plugin.recipes.base import UNREADABLE, Judged, JudgedAnswer, Mark, Prompt, Recipe, Source
from spr_plugin.recipes.spr.answers import (
    Answer,
    Detected,
    Score,
    Truth,
    detections_for,
    phrases_in,
    phrases_of,
    refuse_unreadable,
    scored,
    truth_of,
)
from spr_plugin.recipes.spr.drawing import drawn, facets_of
from spr_plugin.recipes.spr.meanings import MEANINGS
from spr_plugin.recipes.spr.missed import (
    UNKNOWN,
    Completed,
    Order,
    added_in,
    completed,
    measured_order,
    missing_of,
)
from spr_plugin.recipes.spr.models import Description, Detector, Repair, Scorer
from spr_plugin.recipes.spr.names import Agreement, agreement
from spr_plugin.recipes.spr.prompts import plain_question, prompts_for, restate
from spr_plugin.recipes.spr.refinement import Repaired, match
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.recipes.spr.scoring import duplicates, localization_score, strip_coordinates, total_score
from spr_plugin.recipes.spr.source import draw_regions

if TYPE_CHECKING:
    import torch


class SPR(Recipe[RegionQuery]):
    """Spatial Preference Rewarding.

    Args:
        config: the flags.
        box_format: how the model writes boxes; None to read and draw alone.
        repair: of `spr_repair`.
        scorer, detector: of `spr_scorer` and `spr_detector`; `on` loads them.
        order: in which the model names objects, once `after` has measured it: missed ones are added so.
    """

    name = "spr"
    BEST = "s_loc"
    WATCHED = {"parsable": 0.0, "boxes": 0.0, "s_loc": 0.0}
    MEANINGS = MEANINGS

    def __init__(
        self,
        config: SPRConfig,
        box_format: BoxFormat | None,
        repair: Repair | None = None,
        scorer: Scorer | None = None,
        detector: Detector | None = None,
        order: Order = UNKNOWN,
    ):
        self.config, self.box_format, self.order = config, box_format, order
        self.repair, self.scorer, self.detector = repair, scorer, detector

    def on(self, device: str | torch.device) -> SPR:
        config = self.config
        repair: Repair | None = ask("spr_repair", config=config)
        if repair is None:
            raise UserError(
                f"--spr_repair {config.spr_repair}: no plugin has it; ours are coordinates, item and none"
            )
        scorer: Scorer | None = ask("spr_scorer", config=config, device=device)
        if scorer is None:
            raise UserError(f"--spr_scorer {config.spr_scorer}: no plugin has it")
        wanted = config.spr_detector and not config.spr_no_detector
        detector: Detector | None = ask("spr_detector", config=config, device=device) if wanted else None
        return type(self)(config, self.box_format, repair, scorer, detector, self.order)

    def after(self, answers: Iterable[tuple[RegionQuery, str, str]]) -> SPR:
        """With ``--spr_add_missed`` the model's own order is measured, where answers are repaired; one to
        "reference" has that of the annotations.
        """
        if not self.config.spr_add_missed or self.config.spr_repair == "none":
            return self
        own = ((query.image, text) for query, kind, text in answers if kind != "reference")
        sizes = ((text, image.width, image.height) for image, text in own)
        order = measured_order([box.pixels() for box in self.form.parse(*one).boxes] for one in sizes)
        informed = copy.copy(self)
        informed.order, informed.learned = order, f"--spr_add_missed: the model names objects {order}"
        return informed

    def summary(self, records: Iterable[Mapping[str, Any]]) -> list[str]:
        if self.config.spr_reject_vague:
            refuse_unreadable(records)
        if not self.config.spr_add_missed:
            return []
        added, missed = added_in(records)
        return [f"{added} missed objects added to repaired answers, {missed} are missed still"]

    @property
    def form(self) -> BoxFormat:
        """The box format, which all but reading and drawing needs."""
        return known_format(self.box_format)

    # --- asking

    def queries(self, source: Source) -> list[RegionQuery]:
        return draw_regions(self.config, self.form, source)

    def prompts(self, query: RegionQuery) -> list[Prompt]:
        return prompts_for(query, self.form, self.config.spr_prompts)

    def question(self, query: RegionQuery) -> str:
        return plain_question(query.region, self.form)

    def restated(self, raw: str, prompt: Prompt, query: RegionQuery) -> str:
        return restate(raw, prompt, query, self.form)

    def read(self, record: Mapping[str, Any]) -> RegionQuery:
        return RegionQuery.from_record(record)

    # --- judging

    def judge(
        self,
        pictures: Sequence[Image.Image],
        queries: Sequence[RegionQuery],
        texts: Sequence[Sequence[str]],
        pooled: bool = True,
    ) -> list[Judged]:
        """Detector boxes for all of a region's answers join its truth, so that all are measured on the same
        n; not `pooled`, the truth is the annotations. Truths are lists of xyxy in pixels.
        """
        (picture,) = pictures
        answers = [[self._given(query, text) for text in row] for query, row in zip(queries, texts)]
        detected = self._detected(picture, [one for row in answers for one in row], {})
        truths = [
            truth_of(query, detections_for(row, detected) if pooled else ())
            for query, row in zip(queries, answers)
        ]
        self._meet_names([one for row in answers for one in row], truths)
        repairs = [
            [self.repaired(one, truth, query) for one in row]
            for query, truth, row in zip(queries, truths, answers)
        ]
        done: list[list[Completed]] = [[(one, {}) for one in row] for row in repairs]
        if pooled and self.order.pairs:  # in an order that nobody measured objects teach repetition
            done = [self._completed(*row) for row in zip(queries, truths, answers, repairs)]
        again = [
            [self.answer(query, one.text, one.parsed) for one, _ in row] for query, row in zip(queries, done)
        ]
        detected = self._detected(picture, [one for row in again for one in row], detected)
        # One list of everything, so that CLIP is asked once.
        rows = zip(queries, truths, answers, again)
        flat = [(query, truth, one) for query, truth, before, after in rows for one in before + after]
        # Handed out below in the order of `flat`: of each query the answers, then the repaired ones.
        scores = iter(self._scores(picture, flat, detected))
        return [
            self._judged(truth, row, [next(scores) for _ in row], repaired, [next(scores) for _ in row])
            for truth, row, repaired in zip(truths, answers, done)
        ]

    def answer(self, query: RegionQuery, text: str, parsed: Parsed | None = None) -> Answer:
        """A text in coordinates of the whole picture, as it is scored; `parsed` where it was read before."""
        parsed = parsed or self.form.parse(text, query.image.width, query.image.height)
        words = strip_coordinates(text, parsed, self.form)
        if not parsed.boxes and parsed.failures:
            reason: str | None = UNREADABLE
        else:
            reason = "empty" if not words else None if parsed.boxes else "no_box"
        return Answer(text, parsed, words, reason)

    def _given(self, query: RegionQuery, text: str) -> Answer:
        """An answer as the model gave it: with ``--spr_reject_vague`` words are scored without a box too."""
        one = self.answer(query, text)
        vague = self.config.spr_reject_vague and one.words and one.reason
        return replace(one, reason=None, vague=one.reason) if vague else one

    def repaired(self, one: Answer, truth: Truth, query: RegionQuery) -> Repaired:
        """An answer by `spr_repair`; without a scorer names agree by nouns alone."""
        agree = self._agreement(phrases_of(one.parsed), truth.names)
        names: dict[str, Any] = {} if agree is None else {"agree": agree}
        assert self.repair is not None, "judging needs what `on` loads"
        size = query.image.width, query.image.height
        return self.repair(one.text, truth.boxes, self.form, *size, one.parsed, **names)

    def _completed(
        self, query: RegionQuery, truth: Truth, row: Sequence[Answer], repairs: Sequence[Repaired]
    ) -> list[Completed]:
        """The repaired answers to a query with what they miss, and what is counted of it."""
        parsed = [one.parsed for one in row]
        matched = [
            match(
                [box.pixels() for box in one.boxes],
                truth.boxes,
                agree=self._agreement(phrases_of(one), truth.names),
            )
            for one in parsed
        ]
        missing = missing_of(*truth, parsed, matched)
        given = missing, self.form, (query.image.width, query.image.height), self.order, query.seed
        return [completed(one, named, *given) for one, named in zip(repairs, missing.named)]

    def _meet_names(self, answers: Sequence[Answer], truths: Sequence[Truth]) -> None:
        """Ask CLIP about a picture's names all at once: it holds what it has met, and the answers' own
        questions find it there.
        """
        written = [phrase for one in answers for phrase in phrases_of(one.parsed)]
        self._agreement(written, [name for truth in truths for name in truth.names])

    def _agreement(
        self, written: Sequence[str], true: Sequence[str], models: bool = True
    ) -> Agreement | None:
        """(len(written), len(true)) bool, whose names agree; None where ``--spr_match`` does not ask."""
        if self.config.spr_match == "iou":
            return None
        likeness = getattr(self.scorer, "likeness", None) if models else None
        return agreement(written, true, likeness, self.config.spr_match_threshold)

    def _repeated(self, written: Sequence[Box], truth: Truth, agree: Agreement | None) -> int:
        """How many of the boxes `written` count as duplicates; `agree` begins with their names."""
        if not self.config.spr_count_duplicates:
            return 0
        boxes = [box.pixels() for box in written]
        return duplicates(truth.boxes, boxes, None if agree is None else agree[: len(boxes)])

    def _described(self, query: RegionQuery, truth: Truth, one: Answer, detected: Detected) -> Description:
        detected_boxes = detections_for([one], detected)
        boxes = [*one.parsed.boxes, *(box for _, box, _ in detected_boxes)]
        predicted = np.array([box.pixels() for box in boxes], dtype=np.float64).reshape(-1, 4)
        names = [*phrases_of(one.parsed), *(phrase for phrase, _, _ in detected_boxes)]
        agree = self._agreement(names, truth.names)
        repeated = self._repeated(one.parsed.boxes, truth, agree)
        return Description(query, one.text, one.words, predicted, truth.boxes, agree, repeated)

    def _scores(
        self, picture: Image.Image, rows: Sequence[tuple[RegionQuery, Truth, Answer]], detected: Detected
    ) -> list[Score]:
        """The score of each (query, truth, answer) of one picture."""
        described = [self._described(*row, detected) for row in rows if not row[-1].reason]
        assert self.scorer is not None, "judging needs what `on` loads"
        scores = iter(self.scorer.score(picture, described) if described else ())
        return [Score({}, None, one.reason) if one.reason else scored(*next(scores)) for _, _, one in rows]

    def _judged(
        self,
        truth: Truth,
        row: list[Answer],
        scores: list[Score],
        repairs: Sequence[Completed],
        again: list[Score],
    ) -> Judged:
        return Judged(
            truth.boxes.tolist(),
            tuple(
                JudgedAnswer(
                    one.text,
                    *score,
                    repaired.text,
                    after.terms if after.reason else {**after.terms, "kept": repaired.share, **counts},
                    after.score,
                    self._not_choosable(score.reason or one.vague, repaired, after),
                    score.reason,
                )
                for one, score, (repaired, counts), after in zip(row, scores, repairs, again)
            ),
        )

    def _not_choosable(self, why: str | None, repaired: Repaired, after: Score) -> str | None:
        """`why` of the answer as it was given, or what became of it."""
        if why or after.reason:
            return why or "no_box_survived"
        # Words that lost their boxes would teach the model to write none.
        few = "too_few_boxes_kept" if repaired.share < self.config.spr_min_kept else None
        return repaired.not_choosable or few

    def _detected(self, picture: Image.Image, answers: Sequence[Answer], known: Detected) -> Detected:
        """`known`, and what the detector finds for the phrases that are new: all at once, none twice."""
        new = sorted(phrases_in(answers) - known.keys())
        if not self.detector or not new:
            return known
        detected = {**known, **{phrase: [] for phrase in new}}
        for phrase, box, score in self.detector.detect(picture, new):
            if (on_picture := usable(box)) and math.isfinite(score):
                detected[phrase].append((phrase, on_picture, score))
        return detected

    def measure(self, texts: Sequence[str], queries: Sequence[RegionQuery]) -> dict[str, float]:
        """Share of answers with a readable box, boxes an answer, S_loc against the annotations (with
        ``--spr_match name`` by nouns alone).
        """
        sums = {"parsable": 0.0, "boxes": 0.0, "s_loc": 0.0}
        for text, query in zip(texts, queries):
            parsed = self.form.parse(text, query.image.width, query.image.height)
            boxes, truth = parsed.boxes, truth_of(query)
            agree = self._agreement(phrases_of(parsed), truth.names, models=False)
            sums["parsable"] += bool(boxes)
            sums["boxes"] += len(boxes)
            sums["s_loc"] += localization_score(
                truth.boxes, [box.pixels() for box in boxes], agree, self._repeated(boxes, truth, agree)
            )
        return {name: value / len(texts) for name, value in sums.items()}

    # --- showing

    def draw(self, query: RegionQuery, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        return drawn(self.box_format, query, judged)

    def facets(self, query: RegionQuery) -> dict[str, list[str]]:
        return facets_of(query)

    def reweighed(self, terms: Mapping[str, float], lam: float) -> float | None:
        """S with another λ, of the terms of SPR's own scorer."""
        known = {"s_sem", "s_loc"} <= terms.keys()
        return total_score(lam, terms["s_sem"], terms["s_loc"]) if known else None

    def worked(self, query: RegionQuery, short: bool = False) -> str:
        """All objects of the region with their boxes, or the first of them."""
        objects = [(annotation.label, annotation.box) for annotation in query.truth]
        return self.form.render(objects[:1] if short else objects)


@hookimpl
def spr_recipe(name: str, config: SPRConfig, box_format: BoxFormat | None) -> SPR | None:
    """``--spr_recipe spr``."""
    return SPR(config, box_format) if name == SPR.name else None
