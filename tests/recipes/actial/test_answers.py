"""R = 0.5·exact + 0.5·format against a reading that knows no pattern, but characters."""

import os
import random
from collections import Counter

import pytest

from spr_plugin.recipes.actial.answers import answered, is_formed, reward, written

SEED = int(os.environ.get("SPR_TEST_SEED", "0"))
ANSWERS = ["left", "right", "none"]


def naive_answer(text):
    """Of the first <answer> that is closed, up to where it is."""
    low = text.lower()
    for start in range(len(low)):
        if low.startswith("<answer>", start):
            for end in range(start + 8, len(low)):
                if low.startswith("</answer>", end):
                    return text[start + 8 : end].strip()
    return None


def naive_form(text):
    """Somewhere between <think> and </answer> a thought ends, and but for blanks the answer begins."""
    low = text.strip().lower()
    if not low.startswith("<think>"):
        return False
    for end in range(7, len(low)):
        if low.startswith("</think>", end):
            rest = low[end + 8 :].lstrip()
            if rest.startswith("<answer>") and rest.endswith("</answer>") and len(rest) >= 17:
                return True
    return False


def naive_reward(text, answer, gated):
    right, formed = naive_answer(text) == answer, naive_form(text)
    return 0.5 * right + 0.5 * (formed and (right or not gated))


NEARLY = [
    ["", "", " \n", "x"],
    ["<think>", "<think>", "<THINK>", ""],
    ["so", "", "<answer>left</answer>", "</think>", "</think> <answer>"],
    ["</think>", "</think>", "</Think>", ""],
    ["", " ", "\n", "so "],
    ["<answer>", "<answer>", "<Answer>", ""],
    ["left", "right", "none", " left ", "Left", "", "left or right", "<answer>none"],
    ["</answer>", "</answer>", "</ANSWER>", ""],
    ["", "", " ", ".", "<answer>right</answer>"],
]
PIECES = sorted({piece for place in NEARLY for piece in place})


def random_answer(rng):
    """Pieces of an answer in any order, or one that is nearly well-formed."""
    if rng.random() < 0.2:
        return "".join(rng.choices(PIECES, k=rng.randrange(10)))
    return "".join(map(rng.choice, NEARLY))


def test_rewards_of_a_thousand_answers():
    rng, totals = random.Random(SEED), Counter()
    for _ in range(1000):
        text, answer = random_answer(rng), rng.choice(ANSWERS)
        assert answered(text) == naive_answer(text), text
        assert is_formed(text) == naive_form(text), text
        for half in ("paper", "right"):
            total = reward(text, answer, half).total
            assert total == naive_reward(text, answer, half == "right"), (text, answer)
            totals[half, total] += 1
    assert totals.keys() == {(half, total) for half in ("paper", "right") for total in (0.0, 0.5, 1.0)}
    assert min(totals.values()) > 10


@pytest.mark.parametrize(
    "text, paper, right",
    [
        ("<think>so</think><answer>left</answer>", 1.0, 1.0),
        ("<think>so</think>\n<answer> left </answer>\n", 1.0, 1.0),
        ("<answer>left</answer>", 0.5, 0.5),
        ("<think>so</think><answer>right</answer>", 0.5, 0.0),
        ("<think>so</think><answer>Left</answer>", 0.5, 0.0),
        ("<think>so</think><answer>left</answer> it is", 0.5, 0.5),
        ("left", 0.0, 0.0),
        ("<think>left</think>", 0.0, 0.0),
        ("<think>so</think><answer>right</answer><answer>left</answer>", 0.5, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_rewards_by_hand(text, paper, right):
    """A wrong one in form and a right one without a thought are worth the same in the paper."""
    assert (reward(text, "left").total, reward(text, "left", "right").total) == (paper, right)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("why", ["So.", "a\nb", ""])
def test_what_is_written_earns_all(answer, why):
    assert reward(written(why, answer), answer, "right").total == 1


def test_long_texts_are_read_in_linear_time():
    for piece in ("<think>", "</think>", "<answer>", "</answer>", "</think> ", " ", "<"):
        assert reward(f"<think>{piece * 50_000}</answer>", "left").exact == 0
