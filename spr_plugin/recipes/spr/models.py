"""What SPR asks of models and repairs that plugins may bring: plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from spr_plugin.boxes import Array, Box
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.parsed import Parsed
from spr_plugin.recipes.spr.names import Agreement
from spr_plugin.recipes.spr.refinement import Repaired
from spr_plugin.recipes.spr.regions import RegionQuery

Detection = tuple[str, Box, float]  # phrase, box in any space of the picture, score


@dataclass(frozen=True)
class Description:
    """A text as a scorer gets it: one with words, and with boxes that could be read (with
    ``--spr_reject_vague`` also one without).

    Attributes:
        query: what it answers.
        text: the answer, in coordinates of the whole picture.
        words: the same without coordinates.
        predicted: (m, 4) xyxy in pixels: the boxes written, then the detector's for the phrases of this text.
        truth: (n, 4) xyxy in pixels: the region's ground truth, the same for all answers to a query.
        agree: (m, n) bool, which names of `predicted` and `truth` agree; None where names do not count.
        repeated: how many of the boxes written are for an object that another one is for; 0 where that does
            not count.
    """

    query: RegionQuery
    text: str
    words: str
    predicted: Array
    truth: Array
    agree: Agreement | None = None
    repeated: int = 0


class Scorer(Protocol):
    """Scores descriptions. From the hook ``spr_scorer``."""

    def score(
        self, picture: Image.Image, descriptions: Sequence[Description]
    ) -> list[tuple[Mapping[str, float], float]]:
        """For each description its terms, numbers by name for the report, and S, higher is better.

        All descriptions are of this picture, so that an implementation can batch them; a text's score must
        not depend on the others.
        """


class Repair(Protocol):
    """Repairs the boxes of an answer. From the hook ``spr_repair``."""

    def __call__(
        self,
        text: str,
        truth: Array,
        box_format: BoxFormat,
        width: int,
        height: int,
        parsed: Parsed,
        *,
        agree: Agreement | None = None,
    ) -> Repaired:
        """The repaired text with the number of its boxes that were kept and dropped.

        Args:
            text: about a picture of `width` x `height` pixels.
            truth: (n, 4) xyxy in pixels.
            parsed: what was read in the text.
            agree: (boxes of `parsed`, n) bool, whose names agree; given where ``--spr_match`` says so.
        """


class Similarity(Protocol):
    """An image-text model. From the hook ``spr_similarity``.

    One that has ``likeness(first, second)`` too, the (len(first), len(second)) cosines of two lists of texts,
    is asked by ``--spr_match name`` about names whose nouns differ.
    """

    def score(self, picture: Image.Image, asked: Sequence[tuple[Box, str]]) -> list[tuple[float, float]]:
        """For each (region, text without coordinates) ``(S(I_crop, T), S_local(I, T))``: raw cosines.

        `asked` are all the regions and texts of one picture, no two alike, so that an implementation can
        batch them and show itself the picture once. Texts may be longer than the model reads.
        """


class Detector(Protocol):
    """An open-vocabulary detector. From the hook ``spr_detector``."""

    def detect(self, picture: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        """``(phrase, Box, score)`` of everything found for `phrases`, in any order.

        A phrase is one of `phrases`, a box lies in any space of the picture.
        """
