"""How a question is put, to be trained on as to be evaluated on, and in which pixels an answer speaks.

Pixels are those of the picture that the model sees: enlarged, shrunk or padded as its processor does. (The
authors' code enlarges pictures under 512² and keeps the original's pixels in prompt and truth.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spr_plugin.boxes import Array, Space
from spr_plugin.formats import BoxFormat

PROMPT = (
    "{question}\n"
    "Image size: {width} x {height}\n"
    "Write what you see between <observe> and </observe>. Then, between <scene> and </scene>, write the"
    " objects that are asked about with their boxes in pixels, and how they relate: "
    '{{"objects": [{{"id": "name.1", "bbox": [x1, y1, x2, y2]}}], '
    '"relationships": [{{"subject": "name.1", "predicate": "left of", "object": "name.2"}}]}}. '
    "Then think between <think> and </think>, and answer with the letter and the text of one option between"
    " <answer> and </answer>."
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with its lettered options."""
    return "\n".join([question, "Options:", *(option(number, text) for number, text in enumerate(options))])


def option(number: int, text: str) -> str:
    """ "(B) left of": what a right answer says."""
    return f"({LETTERS[number]}) {text}"


def prompt(question: str, width: int, height: int) -> str:
    """What a model is asked.

    Args:
        question: with its options.
        width, height: of the picture as the model sees it (:func:`seen`).
    """
    return PROMPT.format(question=question, width=width, height=height)


@dataclass(frozen=True)
class Seen:
    """The picture as a model sees it: `width` x `height` whole steps of `space`."""

    space: Space
    width: int
    height: int

    def pixels(self, boxes: ArrayLike) -> Array:
        """(n, 4) of an answer, in pixels of the original picture."""
        return np.array(boxes, np.float64).reshape(-1, 4) * (self.space.scale * 2) + self.space.offset * 2

    def steps(self, boxes: ArrayLike) -> list[list[int]]:
        """(n, 4) in pixels of the original picture as an answer writes them: whole, and never empty."""
        values = (np.array(boxes, np.float64).reshape(-1, 4) - self.space.offset * 2) / (self.space.scale * 2)
        low = np.clip(np.rint(values[:, :2]), 0, (self.width - 1, self.height - 1))
        high = np.clip(np.rint(values[:, 2:]), low + 1, (self.width, self.height))
        corners: list[list[int]] = np.hstack([low, high]).astype(int).tolist()
        return corners


def seen(form: BoxFormat, width: int, height: int) -> Seen:
    """A picture of `width` x `height` pixels as a model of the family `form` sees it.

    A family that writes whole numbers (pixels of the resized picture, a grid of 1000) keeps its own; one that
    writes shares of 1 gets pixels of the picture with whatever it is padded with.
    """
    own = form.space(width, height)
    if width > own.scale[0]:
        across, down = (round(side / step) for side, step in zip((width, height), own.scale))
        return Seen(own, across, down)
    across, down = map(round, own.scale)
    return Seen(Space("seen", width, height, offset=own.offset), across, down)
