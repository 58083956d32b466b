"""Chosen and rejected."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.annotations import AnnotatedImage
from spr_plugin.boxes import Box, Space
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.recipes.spr.regions import region_query

SPACE = Space.pixels(100, 100)
QUERY = region_query(AnnotatedImage("7", "/a.jpg", 100, 100, ()), Box(0, 0, 100, 100, SPACE), 0)


def scored(total):
    if total is None:
        return {"terms": {}, "total": 0.0, "valid": False, "reason": "no_box"}
    return {"terms": {}, "total": total, "valid": True, "reason": None}


def candidate(id, initial, refined, text=None, refined_text=None, kept=1.0):
    return {
        "id": id,
        "text": text or f"text {id}",
        "initial": scored(initial),
        "refined_text": refined_text or f"refined {id}",
        "refined": scored(refined),
        "kept": kept,
    }


def test_a_description_that_lost_too_many_boxes_is_not_chosen():
    candidates = [candidate("a", 0.5, 0.9, kept=0.4), candidate("b", 0.6, 0.8, kept=0.8)]
    assert make_pair(QUERY, "Describe.", candidates).chosen_candidate == "b"
    assert make_pair(QUERY, "Describe.", candidates, min_kept=0.4).chosen_candidate == "a"
    assert make_pair(QUERY, "Describe.", candidates, min_kept=0.9) == "too_few_boxes_kept"
    assert make_pair(QUERY, "Describe.", candidates, min_kept=0.9, refinement=False).chosen_candidate == "b"


def test_chosen_is_the_best_refined_and_rejected_the_worst_initial():
    candidates = [candidate("a", 0.5, 0.6), candidate("b", 0.2, 0.7), candidate("c", 0.1, 0.3)]
    pair = make_pair(QUERY, "Describe.", candidates)
    assert (pair.chosen, pair.chosen_score, pair.chosen_candidate) == ("refined b", 0.7, "b")
    assert (pair.rejected, pair.rejected_score, pair.rejected_candidate) == ("text c", 0.1, "c")
    assert (pair.region, pair.prompt, pair.image) == (QUERY.id, "Describe.", "/a.jpg")


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([], "too_few_valid"),
        ([candidate("a", 0.5, 0.6), candidate("b", None, None)], "too_few_valid"),
        ([candidate("a", 0.5, None), candidate("b", 0.4, None)], "no_box_survived"),
        ([candidate("a", 0.5, 0.5, "t", "t "), candidate("b", 0.6, 0.4)], "chosen_equals_rejected"),
        ([candidate("a", 0.5, 0.59), candidate("b", 0.6, 0.4)], "gap_too_small"),
    ],
)
def test_every_skip_has_its_reason(candidates, reason):
    assert make_pair(QUERY, "Describe.", candidates, min_gap=0.1) == reason


def test_without_a_gap_there_is_no_preference():
    candidates = [candidate("a", 0.5, 0.5), candidate("b", 0.6, 0.4)]
    assert make_pair(QUERY, "Describe.", candidates, min_gap=0.0) == "gap_too_small"
    assert isinstance(make_pair(QUERY, "Describe.", [candidate("a", 0.5, 0.7), candidate("b", 0.6, 0.4)], 0.2 - 1e-9), PreferencePair)


def test_without_refinement_chosen_is_what_the_model_said():
    candidates = [candidate("a", 0.5, 0.6), candidate("b", 0.2, 0.7), candidate("c", 0.1, None)]
    pair = make_pair(QUERY, "Describe.", candidates, refinement=False)
    assert (pair.chosen, pair.chosen_score, pair.rejected) == ("text a", 0.5, "text c")
    assert isinstance(make_pair(QUERY, "Describe.", [candidate("a", 0.5, None), candidate("b", 0.4, None)], refinement=False), PreferencePair)


def test_pairs_by_chance_depend_on_the_query_alone():
    candidates = [candidate(name, score, score + 0.1) for name, score in zip("abcdef", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))]
    queries = [dataclasses.replace(QUERY, id=str(seed), seed=seed) for seed in range(60)]
    pairs = [make_pair(query, "Describe.", candidates, by_chance=True) for query in queries]
    again = [make_pair(query, "Describe.", candidates[::-1], by_chance=True) for query in queries]
    assert pairs == again
    assert {pair.chosen_candidate for pair in pairs} == {pair.rejected_candidate for pair in pairs} == set("abcdef")
    assert all(pair.chosen_candidate != pair.rejected_candidate for pair in pairs)
    assert any(pair.chosen_score < pair.rejected_score for pair in pairs), "chance asks for no gap"


SCORES = st.none() | st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(SCORES, SCORES), max_size=6), st.randoms())
def test_a_pair_is_the_extremes_whatever_the_order(rows, shuffler):
    candidates = [candidate(str(place), *row) for place, row in enumerate(rows)]
    pair = make_pair(QUERY, "Describe.", candidates)
    shuffler.shuffle(candidates)
    assert make_pair(QUERY, "Describe.", candidates) == pair
    if isinstance(pair, PreferencePair):
        assert pair.chosen_score > pair.rejected_score and pair.chosen != pair.rejected
        assert pair.chosen_score == max(refined for initial, refined in rows if initial is not None and refined is not None)
        assert pair.rejected_score == min(initial for initial, _ in rows if initial is not None)
