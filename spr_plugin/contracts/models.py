"""What a scorer, a similarity model and a detector are, and plugins' ones, checked at every call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from spr_plugin.annotations import usable
from spr_plugin.boxes import Box, Space
from spr_plugin.contracts.made_up import LONG, made_up
from spr_plugin.foreign import Broken, Foreign, listed, methods, number, of_kind, shown
from spr_plugin.formats.base import BoxFormat
from spr_plugin.recipes.spr.regions import RegionQuery

Detection = tuple[str, Box, float]


class Scorer(Protocol):
    """Scores the regions of one picture together, with the texts of each. From the hook ``spr_scorer``."""

    def truth(
        self,
        queries: Sequence[RegionQuery],
        picture: Image.Image,
        texts: Sequence[Sequence[str]],
        box_format: BoxFormat,
    ) -> list[np.ndarray]:
        """For each query its region's ground truth, pooled over its texts.

        ``(n, 4)`` xyxy in pixels of the picture; n may be 0.
        """

    def score(
        self,
        queries: Sequence[RegionQuery],
        picture: Image.Image,
        texts: Sequence[Sequence[str]],
        box_format: BoxFormat,
        truths: Sequence[np.ndarray],
    ) -> list[list[dict]]:
        """For each query one ``{"terms", "total", "valid", "reason"}`` a text.

        ``terms``: numbers by name, for the report. ``total``: S. ``valid``: whether the text may be chosen or
        rejected, and ``reason``: a word why not, or None. `truths` are those of `truth`, so that repaired texts
        are measured on the same boxes.
        """


class Similarity(Protocol):
    """An image-text model. From the hook ``spr_similarity``."""

    def score(self, picture: Image.Image, asked: Sequence[tuple[Box, str]]) -> list[tuple[float, float]]:
        """For each (region, text without coordinates) ``(S(I_crop, T), S_local(I, T))``: raw cosines.

        `asked` are all the regions and texts of one picture, no two alike, so that an implementation can batch
        them and show itself the picture once. Texts may be longer than the model reads.
        """


class Detector(Protocol):
    """An open-vocabulary detector. From the hook ``spr_detector``."""

    def detect(self, picture: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        """``(phrase, Box, score)`` of everything found for `phrases`, in any order.

        A phrase is one of `phrases`, a box lies in any space of the picture.
        """


class CheckedScorer(Foreign):
    """A plugin's :class:`Scorer`. `try_out` needs the run's box format; who asks for a scorer calls it."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, methods(Scorer))

    def truth(self, queries, picture, texts, box_format) -> list[np.ndarray]:
        with self.checking("truth"):
            own = _copies(texts)  # a plugin that sorts its own would change what is logged
            rows = listed(self.given.truth(list(queries), picture, own, box_format), len(queries), "regions")
            return [_corners(row) for row in rows]

    def score(self, queries, picture, texts, box_format, truths) -> list[list[dict]]:
        with self.checking("score"):
            own = [truth.copy() for truth in truths]
            scores = self.given.score(list(queries), picture, _copies(texts), box_format, own)
            rows = listed(scores, len(queries), "regions")
            by_text = [listed(row, len(said), "texts") for row, said in zip(rows, texts)]
            return [[_judged(one) for one in row] for row in by_text]

    def try_out(self, box_format: BoxFormat) -> None:
        with made_up() as (picture, queries):
            texts = [_texts(query, box_format) for query in queries]
            texts[1] = texts[1][:-1]  # regions differ in their number of texts
            truths = self.truth(queries, picture, texts, box_format)
            space = Space.pixels(*picture.size)
            with self.checking("truth"):
                for corners in (corners for truth in truths for corners in truth.tolist()):
                    if not usable(Box(*corners, space)):
                        raise Broken(
                            f"gives {corners}, no box in pixels of a picture of {space.width} x {space.height}"
                        )
            self.score(queries, picture, texts, box_format, truths)


def _copies(texts: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(said) for said in texts]


def _corners(truth) -> np.ndarray:
    if truth is None:
        raise Broken("gives None for a region, no (n, 4) array")
    array = np.asarray(truth, dtype=np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise Broken(f"gives an array of shape {array.shape} for a region, not (n, 4)")
    if not np.isfinite(array).all():
        raise Broken("gives boxes that are not finite")
    return array


def _judged(row) -> dict:
    """One text's score as plain data."""
    missing = [name for name in ("terms", "total", "valid", "reason") if name not in of_kind(row, Mapping)]
    if missing:
        raise Broken(f'gives a score without "{missing[0]}": {shown(row)}')
    terms = of_kind(row["terms"], Mapping, "as terms ")
    terms = {name: number(value, f"the term {name}") for name, value in terms.items()}
    plain = {**row, "terms": terms, "total": number(row["total"], "as total")}
    plain["valid"] = bool(of_kind(row["valid"], (bool, np.bool_), "as valid "))
    of_kind(row["reason"], (str, type(None)), "as reason ")
    try:
        json.dumps(plain)  # it becomes a line of a log
    except TypeError as error:
        raise Broken(f"gives a score that JSON cannot hold ({error}): {', '.join(map(str, plain))}") from None
    return plain


class CheckedSimilarity(Foreign):
    """A plugin's :class:`Similarity`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, methods(Similarity))
        with made_up() as (picture, queries):
            texts = "a red square and a cup", "a cup", LONG
            self.score(picture, [(query.region, text) for query in queries for text in texts])

    def score(self, picture, asked) -> list[tuple[float, float]]:
        with self.checking("score"):
            rows = listed(self.given.score(picture, list(asked)), len(asked), "(region, text)")
            pairs = [listed(row, 2, "(S_crop, S_local)") for row in rows]
            return [(number(s_crop, "as S_crop"), number(s_local, "as S_local")) for s_crop, s_local in pairs]


class CheckedDetector(Foreign):
    """A plugin's :class:`Detector`."""

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
    return phrase, Box(*(number(value, "a box with") for value in box.xyxy), space), number(score, "as score")


def _texts(query: RegionQuery, form: BoxFormat) -> list[str]:
    """A good answer, one with a wrong box, a long one, one cut off, one without boxes, and an empty one."""
    right = form.render([(annotation.label, annotation.box) for annotation in query.truth])
    wrong = form.render([("cup", query.region)])
    return [right, wrong, f"{LONG} {right}", right[:-2], "a cup", ""]
