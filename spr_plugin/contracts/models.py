"""A plugin's scorer, similarity model, detector and repair, checked at every call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spr_plugin.boxes import Box
from spr_plugin.contracts.made_up import LONG, made_up
from spr_plugin.foreign import Broken, Foreign, listed, methods, number, of_kind, shown
from spr_plugin.recipes.spr.models import Description, Detection, Detector, Scorer, Similarity
from spr_plugin.recipes.spr.refinement import Repaired, Uncut
from spr_plugin.recipes.spr.regions import RegionQuery


class CheckedScorer(Foreign):
    """A plugin's :class:`spr_plugin.recipes.spr.models.Scorer`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, methods(Scorer))
        with made_up() as (picture, queries):
            self.score(picture, [one for query in queries for one in _descriptions(query)])

    def score(self, picture, descriptions) -> list[tuple[dict[str, float], float]]:
        with self.checking("score"):
            # A plugin that sorts its own would change what others are measured on.
            own = [
                replace(one, predicted=one.predicted.copy(), truth=one.truth.copy()) for one in descriptions
            ]
            return [
                _terms_and_score(row)
                for row in listed(self.given.score(picture, own), len(descriptions), "descriptions")
            ]


def _terms_and_score(row) -> tuple[dict[str, float], float]:
    """One description's score as plain data."""
    terms, score = listed(row, 2, "(terms, score)")
    terms = {
        of_kind(name, str, "as name of a term "): number(value, f"the term {name}")
        for name, value in of_kind(terms, Mapping, "as terms ").items()
    }
    return terms, number(score, "as score")


class CheckedRepair(Foreign):
    """A plugin's :class:`spr_plugin.recipes.spr.models.Repair`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, ["__call__"])
        if arguments["config"].spr_match == "name":
            with self.checking():
                taken = inspect.signature(given).parameters.values()
                if not any(one.name == "agree" or one.kind is one.VAR_KEYWORD for one in taken):
                    raise Broken("takes no agree=, which names agree: add it, or run with --spr_match iou")

    def __call__(self, text, truth, box_format, width, height, parsed, **names) -> Repaired:
        with self.checking():
            made = self.given(text, truth.copy(), box_format, width, height, parsed, **names)
            repaired, kept, dropped = listed(listed(made)[:3], 3, "(text, kept, dropped)")
            of_kind(repaired, str, "as text ")
            for count in (kept, dropped):
                if of_kind(count, int, "as number of boxes ") < 0:
                    raise Broken(f"gives {shown(count)} as number of boxes")
        whole = Uncut if isinstance(made, Uncut) else Repaired
        return whole(repaired, kept, dropped, box_format.parse(repaired, width, height))


class CheckedSimilarity(Foreign):
    """A plugin's :class:`spr_plugin.recipes.spr.models.Similarity`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, methods(Similarity))
        with made_up() as (picture, queries):
            texts = "a red square and a cup", "a cup", LONG
            self.score(picture, [(query.region, text) for query in queries for text in texts])
        self.likeness = self._likeness if callable(getattr(given, "likeness", None)) else None
        if self.likeness:
            self.likeness(["a cup", LONG], ["a red square"])

    def _likeness(self, first, second) -> np.ndarray:
        with self.checking("likeness"):
            rows = listed(self.given.likeness(list(first), list(second)), len(first), "texts")
            return np.array(
                [
                    [number(value, "as likeness") for value in listed(row, len(second), "texts")]
                    for row in rows
                ]
            )

    def score(self, picture, asked) -> list[tuple[float, float]]:
        with self.checking("score"):
            rows = listed(self.given.score(picture, list(asked)), len(asked), "(region, text)")
            pairs = [listed(row, 2, "(S_crop, S_local)") for row in rows]
            return [(number(s_crop, "as S_crop"), number(s_local, "as S_local")) for s_crop, s_local in pairs]


class CheckedDetector(Foreign):
    """A plugin's :class:`spr_plugin.recipes.spr.models.Detector`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, methods(Detector))
        with made_up() as (picture, _):
            self.detect(picture, ["a cup", "a red square", LONG])

    def detect(self, picture, phrases) -> list[Detection]:
        with self.checking("detect"):
            rows = listed(self.given.detect(picture, list(phrases)))
            return [_detection(row, picture.size, phrases) for row in rows]


def _detection(row, size: tuple[int, int], phrases: Sequence[str]) -> Detection:
    if not isinstance(row, (tuple, list)) or len(row) != 3:
        raise Broken(f"gives {shown(row)}, no (phrase, Box, score)")
    phrase, box, score = row
    if phrase not in phrases:
        raise Broken(f"gives something for {shown(phrase)}, which was not asked for")
    space = of_kind(box, Box).space
    if (space.width, space.height) != size:
        theirs, ours = f"{space.width} x {space.height}", f"{size[0]} x {size[1]}"
        raise Broken(f"gives a box of a picture of {theirs} for one of {ours}")
    return (
        phrase,
        Box.of((number(value, "a box with") for value in box.xyxy), space),
        number(score, "as score"),
    )


def _descriptions(query: RegionQuery) -> list[Description]:
    """A right one, one with another box, one that finds nothing and a long one."""
    truth = np.array([annotation.box.pixels() for annotation in query.truth], dtype=np.float64)
    words = " and ".join(annotation.label for annotation in query.truth)
    boxes = truth, np.array([query.region.pixels()], dtype=np.float64), np.zeros((0, 4)), truth
    texts = words, "cup", words, f"{LONG} {words}"
    return [Description(query, text, text, predicted, truth) for text, predicted in zip(texts, boxes)]
