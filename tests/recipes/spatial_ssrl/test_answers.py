r"""R = 0.9·exact + 0.1·format against a reading of the formula that knows no pattern, but characters."""

import os
import random
from collections import Counter

import pytest

from spr_plugin.recipes.spatial_ssrl.answers import boxed, is_formed, reward, written

SEED = int(os.environ.get("SPR_TEST_SEED", "0"))
ANSWERS = ["0-2-3-1", "2-1", "B", "3-1-2"]


def naive_boxes(text):
    """Where ``\\boxed{`` is followed by ``}`` before any other brace: what stands between, in order."""
    found, place = [], 0
    while (start := text.find(r"\boxed{", place)) >= 0:
        place = start + len(r"\boxed{")
        inside = ""
        for letter in text[place:]:
            if letter in "{}":
                if letter == "}":
                    found.append(inside)
                break
            inside += letter
    return found


def naive_reward(text, answer):
    """0.9 for the last box that says the answer, 0.1 for one thought that comes first and a box behind it."""
    boxes = naive_boxes(text)
    right = bool(boxes) and boxes[-1].strip() == answer
    text = text.strip()
    formed = False
    if text.startswith("<think>") and text.count("<think>") == text.count("</think>") == 1:
        thought, after = text[len("<think>") :].split("</think>")
        formed = thought.strip() != "" and bool(naive_boxes(after))
    return 0.9 * right + 0.1 * formed


PIECES = ["<think>", "</think>", r"\boxed{", "}", "{", " ", "\n", "A", "0-2-3-1", "so", r"\boxed{B}", "é"]
NEARLY = [
    ["", "", " ", "x"],
    ["<think>", "<think>", ""],
    ["so", "so", " ", "", r"\boxed{A}", "<think>"],
    ["</think>", "</think>", ""],
    [" ", "", "it is ", "</think>"],
    [form % one for one in ANSWERS for form in (r"\boxed{%s}", r"\boxed{ %s }", "%s")],
    ["", "", "\n", ".", r"\boxed{C}", r"\boxed{"],
]


def random_answer(rng):
    """Pieces of an answer in any order, or one that is nearly well-formed."""
    if rng.random() < 0.3:
        return "".join(rng.choices(PIECES, k=rng.randrange(12)))
    return "".join(map(rng.choice, NEARLY))


def test_rewards_of_a_thousand_answers():
    rng, totals = random.Random(SEED), Counter()
    for _ in range(1000):
        text, answer = random_answer(rng), rng.choice(ANSWERS)
        total = reward(text, answer).total
        assert total == pytest.approx(naive_reward(text, answer)), (text, answer)
        assert boxed(text) == (naive_boxes(text)[-1].strip() if naive_boxes(text) else None), text
        totals[round(total, 1)] += 1
    assert totals.keys() == {0.0, 0.1, 0.9, 1.0} and min(totals.values()) > 3


@pytest.mark.parametrize(
    "text, total",
    [
        (r"<think>so</think> \boxed{B}", 1.0),
        (r"\boxed{B}", 0.9),
        (r"<think>so</think> \boxed{A}", 0.1),
        (r"<think>so</think> B", 0.0),
        (r"<think>B or A: \boxed{B}</think>", 0.9),
        (r"<think>so</think> \boxed{B} or \boxed{A}", 0.1),
        (r"<think> </think> \boxed{B}", 0.9),
        (r"so <think>so</think> \boxed{B}", 0.9),
        (r"<think>so</think></think> \boxed{B}", 0.9),
        (r"<think>so</think> \boxed{b}", 0.1),
        ("", 0.0),
    ],
)
def test_rewards_by_hand(text, total):
    assert reward(text, "B").total == pytest.approx(total)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("why", ["So.", "a\nb", "{}"])
def test_what_is_written_earns_all(answer, why):
    assert reward(written(why, answer), answer).total == 1 and is_formed(written(why, answer))


@pytest.mark.parametrize(
    "said, places", [("0-2-3-1", 4), ("0-2-1-3", 2), ("2-3-1-0", 0), ("0-2-3", 0), ("0-2-3-1-4", 0), ("B", 0)]
)
def test_partial_credit_is_the_share_of_places(said, places):
    text = rf"\boxed{{{said}}}"
    assert reward(text, "0-2-3-1", partial=True).exact == places / 4
    assert reward(text, "0-2-3-1").exact == (places == 4)
    assert reward(r"\boxed{A}", "B", partial=True).exact == 0


def test_long_texts_are_read_in_linear_time():
    """A model that repeats itself to its last token."""
    for piece in ("<think>", "</think>", r"\boxed{", r"\boxed{A}", "{"):
        assert reward(piece * 50_000, "B").exact == 0
