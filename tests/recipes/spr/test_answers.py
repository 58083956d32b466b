"""What judging hands on, and when most of it cannot be read."""

import pytest

from spr_plugin.boxes import Box
from spr_plugin.errors import UserError
from spr_plugin.recipes.spr.answers import (
    Answer,
    detections_for,
    phrases_in,
    phrases_of,
    refuse_unreadable,
    scored,
    truth_of,
)

from .by_hand import FORM, SPACE, query


def records(*rows):
    """Of scores; an answer is its (reason, not_choosable)."""
    return [{"candidates": [{"reason": one, "not_choosable": two} for one, two in row]} for row in rows]


def test_more_than_half_of_the_answers_unreadable_is_another_box_text():
    """Whether they were scored as vague ones or had not even words."""
    fine, vague, unread, silent = (None, None), (None, "no_box"), (None, "unparsable"), ("unparsable",) * 2
    refuse_unreadable(records([fine, unread], [vague, silent]))
    refuse_unreadable(records([vague, vague]))
    refuse_unreadable([])
    with pytest.raises(
        UserError,
        match="^3 of 5 answers cannot be read.*--spr_box_format.*spr/scores under --output_dir has them$",
    ) as refused:
        refuse_unreadable(records([fine, unread], [vague, silent, unread]))
    assert "\n" not in str(refused.value)


def answer(text) -> Answer:
    parsed = FORM.parse(text, 100, 100)
    return Answer(text, parsed, FORM.words(text, parsed), None)


BOTH = answer("two dogs [0.0, 0.0, 0.2, 0.2] and [0.3, 0.3, 0.4, 0.4], a cup [0.5, 0.5, 0.6, 0.6]")


def test_phrases_are_of_mentions_or_of_boxes():
    bare = answer("[0.1, 0.1, 0.2, 0.2] is all.")
    assert phrases_in([BOTH, bare, answer("a cup")]) == {"two dogs", "cup"}
    assert phrases_of(BOTH.parsed) == ["two dogs", "two dogs", "cup"] and phrases_of(bare.parsed) == [""]


def test_detections_are_those_for_what_is_named():
    box = Box(70, 70, 90, 90, SPACE)
    detected = {name: [(name, box, 0.5)] for name in ("cup", "two dogs", "cat")}
    assert detections_for([BOTH], detected) == [*detected["cup"], *detected["two dogs"]]
    assert detections_for([answer("nothing")], detected) == []


def test_truth_is_the_annotations_and_what_a_detector_adds():
    own = truth_of(query())
    assert own.boxes.tolist() == [[0, 0, 20, 20], [40, 40, 60, 60]] and own.names == ["thing 0", "thing 1"]
    more = truth_of(query(), [("cat", Box(70, 70, 90, 90, SPACE), 0.8)])
    assert more.boxes.tolist() == [*own.boxes.tolist(), [70, 70, 90, 90]]
    assert more.names == [*own.names, "cat"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_score_of_numbers_that_are_none_is_none(number):
    assert scored({"s_loc": 0.5}, 0.7) == ({"s_loc": 0.5}, 0.7, None)
    assert scored({"s_loc": number}, 0.7) == scored({"s_loc": 0.5}, number) == ({}, None, "not_finite")
