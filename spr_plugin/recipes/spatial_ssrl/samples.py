"""What a task makes: what is shown, a question, its answer.

Pixels are uint8 RGB (height, width, 3), depth is 0 (near) to 1 (far), NaN where nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from spr_plugin.data.depth import Depth
from spr_plugin.data.made import Step

LETTERS = "ABCD"


class Refused(Exception):
    """No sample can be made; the word is the reason, under which it is counted."""


@dataclass(frozen=True)
class View:
    """A picture that is shown: its size in pixels, and the steps that make it of the file's."""

    size: tuple[int, int]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Sample:
    """One question.

    Attributes:
        views: what is shown, in this order.
        answer: what stands in the box of a right answer.
        why: a sentence of reasoning that leads to it.
        facts: plain data by which the answer can be checked and drawn.
    """

    views: tuple[View, ...]
    question: str
    answer: str
    why: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Scene(NamedTuple):
    """What samples are made of."""

    picture: Image.Image
    depth: Depth | None = None
