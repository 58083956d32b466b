"""What an answer is worth: R = 0.5·exact + 0.5·format.

exact: the text of the first ``<answer>…</answer>`` is the right one, without the blanks around it, case
counts. format: ``<think>…</think><answer>…</answer>`` and nothing around; case of the tags does not count. As
in the authors' code.
"""

from __future__ import annotations

import re

from spr_plugin.recipes.by_text import CLOSE, OPEN, Worth

TAG = re.compile(r"</?answer>", re.IGNORECASE)
BETWEEN = re.compile(r"</think>\s*<answer>", re.IGNORECASE)
STARTS, ENDS = "<answer>", "</answer>"
EXACT, FORMAT = 0.5, 0.5
ASKED = f" Think between {OPEN} and {CLOSE}, then give the answer between {STARTS} and {ENDS}."


def answered(text: str) -> str | None:
    """What stands in the first answer of a text."""
    start = None
    for tag in TAG.finditer(text):
        if tag[0][1] != "/":
            start = tag.end() if start is None else start
        elif start is not None:
            return text[start : tag.start()].strip()
    return None


def is_formed(text: str) -> bool:
    """Whether a text is a thought and an answer, and nothing else."""
    text = text.strip()
    tagged = text[: len(OPEN)].lower() == OPEN and text[-len(ENDS) :].lower() == ENDS
    return tagged and BETWEEN.search(text, len(OPEN), len(text) - len(ENDS)) is not None


def reward(text: str, answer: str, format_half: str = "paper") -> Worth:
    """Of a text as answer to a question; `format_half`: see the settings."""
    exact, formed = float(answered(text) == answer), float(is_formed(text))
    paid = formed if format_half == "paper" else formed * exact
    return Worth(exact, formed, EXACT * exact + FORMAT * paid)


def written(why: str, answer: str) -> str:
    """A right answer in the form that earns all."""
    return f"{OPEN}{why}{CLOSE}{STARTS}{answer}{ENDS}"
