r"""What an answer is worth: R = 0.9·exact + 0.1·format.

exact: the text of the last ``\boxed{…}`` is the answer's, without the blanks around it. format: the answer is
``<think>``, some words, ``</think>``, and after it a box.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BOX = re.compile(r"\\boxed\{([^{}]*)\}")
OPEN, CLOSE = "<think>", "</think>"
EXACT, FORMAT = 0.9, 0.1
ASKED = rf" Think between {OPEN} and {CLOSE}, then give the answer in \boxed{{}}."


class Reward(NamedTuple):
    """Both terms lie between 0 and 1."""

    exact: float
    format: float

    @property
    def total(self) -> float:
        return EXACT * self.exact + FORMAT * self.format


def boxed(text: str) -> str | None:
    """What stands in the last box of a text."""
    found = BOX.findall(text)
    return found[-1].strip() if found else None


def is_formed(text: str) -> bool:
    """Whether a text reasons first, once, and then boxes its answer."""
    before, _, after = text.strip().partition(CLOSE)
    thought = before.removeprefix(OPEN)
    tagged = before != thought and OPEN not in thought and OPEN not in after and CLOSE not in after
    return tagged and bool(thought.strip()) and BOX.search(after) is not None


def reward(text: str, answer: str, partial: bool = False) -> Reward:
    """Of a text as answer to a question.

    Args:
        partial: an order earns the share of its places that are right, if it has as many as there are.
    """
    said = boxed(text)
    exact = float(said == answer)
    if partial and said is not None and "-" in answer:
        given, wanted = said.split("-"), answer.split("-")
        if len(given) == len(wanted):
            exact = sum(one == other for one, other in zip(given, wanted)) / len(wanted)
    return Reward(exact, float(is_formed(text)))


def written(why: str, answer: str) -> str:
    """A right answer in the form that earns all."""
    return rf"{OPEN}{why}{CLOSE} \boxed{{{answer}}}"
