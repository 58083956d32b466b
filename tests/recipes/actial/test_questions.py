"""What is asked about two pictures, and why an answer is right."""

import random

import pytest

from spr_plugin.recipes.actial.motion import MOTIONS, TASKS
from spr_plugin.recipes.actial.questions import OPTIONS, QUESTIONS, question, reason


def test_what_a_question_means_and_why(ask):
    queries, _ = ask(60)
    for query in queries:
        motion, answer, why = (query.truth[name] for name in ("motion", "answer", "why"))
        moves, turns = MOTIONS[motion]
        assert ("did not move sideways" in why) != moves and ("did not turn" in why) != turns
        said = {"move": f"moved to its {answer}", "turn": f"turned to its {answer}"}
        said["object_move"] = f"it went to the {answer} of who faces it"
        assert said[query.task] in why or (answer == "none" and "not" in why)


@pytest.mark.parametrize("task", TASKS)
def test_options_come_in_any_order(task):
    """So that no place among them is the better guess."""
    texts = {question(task, random.Random(seed)) for seed in range(60)}
    orders = {text.partition("Options: ")[2].partition(".")[0] for text in texts}
    assert len(orders) == 6 and all(sorted(order.split(", ")) == sorted(OPTIONS) for order in orders)
    assert all(f"{QUESTIONS[task]}?" in text for text in texts)
    assert question(task, random.Random(3)) == question(task, random.Random(3))


@pytest.mark.parametrize(
    ("task", "answers", "said"),
    [
        ("move", {"move": "left", "turn": "none"}, "moved to its left and did not turn"),
        ("turn", {"move": "none", "turn": "right"}, "did not move sideways and turned to its right"),
        ("turn", {"turn": "none"}, "did not turn"),
        (
            "object_move",
            {"move": "left", "turn": "right", "object_move": "right"},
            "moved to its left and turned to its right and it went to the right of who faces it",
        ),
        ("object_move", {"object_move": "none"}, "it did not move for who faces it"),
    ],
)
def test_a_reason_says_what_is_clear_of_the_motion(task, answers, said):
    assert reason(task, answers) == f"The camera {said}."
