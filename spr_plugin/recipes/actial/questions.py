"""What is asked about two pictures, in words, and why an answer is right."""

from __future__ import annotations

import random
from collections.abc import Mapping

from spr_plugin.recipes.actial.answers import ASKED

OPTIONS = ("left", "right", "none")
FIRST = "The first picture was taken before the second one, by the same camera."
QUESTIONS = {
    "move": "Which way did the camera move sideways, as seen by itself at the first picture",
    "object_move": "Somebody stands where the object is and faces the camera of the first picture. Which way"
    " did the camera move for them",
    "turn": "Which way did the camera turn about its vertical axis",
}
SAID = {
    "move": ("did not move sideways", "moved to its {side}"),
    "turn": ("did not turn", "turned to its {side}"),
    "object_move": ("it did not move for who faces it", "it went to the {side} of who faces it"),
}


def question(task: str, rng: random.Random) -> str:
    """With its options in any order, so that no place among them is the better guess."""
    options = ", ".join(rng.sample(OPTIONS, len(OPTIONS)))
    return f"{FIRST} {QUESTIONS[task]}? Options: {options}.{ASKED}"


def reason(task: str, answers: Mapping[str, str]) -> str:
    """A sentence that leads to the answer: how the camera moved, as far as it is clear, and turned."""
    names = dict.fromkeys(name for name in ("move", "turn", task) if name in answers)
    parts = [SAID[name][answers[name] != "none"].format(side=answers[name]) for name in names]
    return f"The camera {' and '.join(parts)}."
