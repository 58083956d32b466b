r"""What an answer is worth: R = 0.9·exact + 0.1·format.

exact: the text of the last ``\boxed{…}`` is the answer's, without the blanks around it. format: the answer is
``<think>``, some words, ``</think>``, and after it a box.
"""

from __future__ import annotations

import re

from spr_plugin.recipes.by_text import CLOSE, OPEN, Worth

BOX = re.compile(r"\\boxed\{([^{}]*)\}")
EXACT, FORMAT = 0.9, 0.1
ASKED = rf" Think between {OPEN} and {CLOSE}, then give the answer in \boxed{{}}."


def boxed(text: str) -> str | None:
    """What stands in the last box of a text."""
    boxes = BOX.findall(text)
    return boxes[-1].strip() if boxes else None


def is_formed(text: str) -> bool:
    """Whether a text reasons first, once, and then boxes its answer."""
    before, _, after = text.strip().partition(CLOSE)
    thought = before.removeprefix(OPEN)
    tagged = before != thought and OPEN not in thought and OPEN not in after and CLOSE not in after
    return tagged and bool(thought.strip()) and BOX.search(after) is not None


def reward(text: str, answer: str, partial: bool = False) -> Worth:
    """Of a text as answer to a question.

    Args:
        partial: an order earns the share of its places that are right, if it has as many as there are.
    """
    stated = boxed(text)
    exact = float(stated == answer)
    if partial and stated is not None and "-" in answer:
        given, wanted = stated.split("-"), answer.split("-")
        if len(given) == len(wanted):
            exact = sum(one == other for one, other in zip(given, wanted)) / len(wanted)
    formed = float(is_formed(text))
    return Worth(exact, formed, EXACT * exact + FORMAT * formed)


def written(why: str, answer: str) -> str:
    """A right answer in the form that earns all."""
    return rf"{OPEN}{why}{CLOSE} \boxed{{{answer}}}"
