"""Chosen and rejected."""

import dataclasses
import functools
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage
from spr_plugin.errors import UserError
from spr_plugin.pairing import (
    OURS,
    PreferencePair,
    best_over_worst,
    by_chance,
    equally_long,
    find_pairing,
    make_pair,
    repaired_over_said,
    untrained,
)
from spr_plugin.recipes.spr.regions import region_query

SPACE = Space.pixels(100, 100)
QUERY = region_query(AnnotatedImage("7", "/a.jpg", 100, 100, ()), Box(0, 0, 100, 100, SPACE), 0)


def candidate(id, score, repaired_score, text=None, repaired=None, not_choosable=None, not_rejectable=None):
    """A record's row; a score of None is of a text without a box."""
    reason = "no_box" if score is None else None
    if reason or repaired_score is None:
        not_choosable = reason or "no_box_survived"
    return {
        "id": id,
        "text": text or f"text {id}",
        "terms": {},
        "score": score,
        "reason": reason,
        "repaired": repaired or f"refined {id}",
        "repaired_terms": {},
        "repaired_score": repaired_score,
        "not_choosable": not_choosable,
        "not_rejectable": reason or not_rejectable,
    }


def pair_of(candidates, pairing=best_over_worst, query=QUERY, **settings):
    return make_pair(query, "Describe.", candidates, functools.partial(pairing, **settings))


def test_chosen_is_the_best_repaired_and_rejected_the_worst_initial():
    candidates = [candidate("a", 0.5, 0.6), candidate("b", 0.2, 0.7), candidate("c", 0.1, 0.3)]
    pair = pair_of(candidates)
    assert (pair.chosen, pair.chosen_score, pair.chosen_candidate) == ("refined b", 0.7, "b")
    assert (pair.rejected, pair.rejected_score, pair.rejected_candidate) == ("text c", 0.1, "c")
    assert (pair.query, pair.prompt, pair.pictures) == (QUERY.id, "Describe.", ("/a.jpg",))


def test_what_may_not_be_chosen_or_rejected_is_not():
    best = candidate("a", 0.5, 0.9, not_choosable="too_few_boxes_kept")
    worst = candidate("b", 0.1, 0.2, not_rejectable="right")
    pair = pair_of([best, worst, candidate("c", 0.6, 0.8)])
    assert (pair.chosen_candidate, pair.rejected_candidate) == ("c", "a")


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([], "too_few_valid"),
        ([candidate("a", 0.5, 0.6), candidate("b", None, None)], "too_few_valid"),
        ([candidate("a", 0.5, None), candidate("b", 0.4, None)], "no_box_survived"),
        ([candidate("a", 0.5, 0.5, "t", "t "), candidate("b", 0.6, 0.4)], "chosen_equals_rejected"),
        ([candidate("a", 0.5, 0.59), candidate("b", 0.6, 0.4)], "gap_too_small"),
        (
            [candidate("a", 0.5, None), candidate("b", 0.5, 0.1, not_choosable="too_few_boxes_kept")],
            "too_few_boxes_kept",
        ),
        ([candidate(id, 0.5, 0.6, not_rejectable="right") for id in "ab"], "right"),
    ],
)
def test_every_skip_has_its_reason(candidates, reason):
    assert pair_of(candidates, min_gap=0.1) == reason
    assert pair_of(candidates[::-1], min_gap=0.1) == reason


def test_where_nothing_can_be_repaired_the_lower_id_s_reason_counts():
    rows = [
        candidate("a", 0.5, None) | {"not_choosable": "first"},
        candidate("b", 0.9, None) | {"not_choosable": "second"},
    ]
    assert pair_of(rows) == pair_of(rows[::-1]) == "first"


def test_any_gap_is_enough_by_default():
    pair = pair_of([candidate("a", 0.5, 0.1), candidate("b", 0.6, 0.5001)])
    assert pair.chosen_score - pair.rejected_score == pytest.approx(1e-4)


def test_a_pairing_that_takes_what_has_no_score_is_a_mistake_of_ours():
    rows = [candidate("a", 0.5, 0.6), candidate("b", None, None)]
    for ids in (("a", "b"), ("b", "a")):
        with pytest.raises(AssertionError, match="no score is in no pair"):
            make_pair(QUERY, "Describe.", rows, lambda query, answers, ids=ids: ids)


def test_the_best_of_what_was_repaired_gives_the_reason():
    rows = [
        candidate("a", 0.5, 0.6, not_choosable="first"),
        candidate("b", 0.5, 0.7, not_choosable="second"),
        candidate("c", 0.9, None),
    ]
    assert pair_of(rows) == pair_of(rows[::-1]) == "second"


def test_without_a_gap_there_is_no_preference():
    assert pair_of([candidate("a", 0.5, 0.5), candidate("b", 0.6, 0.4)]) == "gap_too_small"


@pytest.mark.parametrize(("gap", "skipped"), [(0.25, False), (0.25 + 1e-6, True), (0.0, False)])
def test_a_gap_of_the_least_size_is_enough(gap, skipped):
    pair = pair_of([candidate("a", 0.5, 0.75), candidate("b", 0.6, 0.4)], min_gap=gap)
    assert (pair == "gap_too_small") == skipped


@pytest.mark.parametrize("rows", [1, -1])
def test_where_nothing_may_be_rejected_the_worst_one_says_why(rows):
    kept = [
        candidate("a", 0.5, 0.6, not_rejectable="better"),
        candidate("b", 0.2, 0.3, not_rejectable="worst"),
    ]
    assert pair_of(kept[::rows]) == "worst"


@pytest.mark.parametrize("way", [best_over_worst, repaired_over_said, equally_long])
def test_without_a_least_gap_a_little_is_enough(way):
    rows = [candidate("a", 0.5, 0.504, "one a", "two a"), candidate("b", 0.502, 0.503, "one b", "two b")]
    assert not isinstance(pair_of(rows, way), str)


@pytest.mark.parametrize(
    "made, train, marked, why",
    [
        (10, 7, 2, {"marked": 2, "held out or too long": 1}),
        (7, 7, 0, {}),
        (9, 7, 2, {"marked": 2}),
        (9, 8, 0, {"held out or too long": 1}),
    ],
)
def test_why_pairs_do_not_train(made, train, marked, why):
    assert untrained(made, train, marked) == why


@pytest.mark.parametrize("way", [best_over_worst, repaired_over_said])
def test_a_gap_is_what_its_decimals_say(way):
    """0.9 - 0.8 is less than 0.1 in floats."""
    for low, high in itertools.combinations(range(11), 2):
        rows, gap = [candidate("a", low / 10, high / 10), candidate("b", high / 10, None)], (high - low) / 10
        assert pair_of(rows, way, min_gap=gap) != "gap_too_small", (low, high)
        assert pair_of(rows, way, min_gap=gap + 1e-6) == "gap_too_small", (low, high)


def test_pairs_by_chance_depend_on_the_query_alone():
    candidates = [
        candidate(name, score, score + 0.1) for name, score in zip("abcdef", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    ]
    queries = [dataclasses.replace(QUERY, id=str(seed), seed=seed) for seed in range(60)]
    pairs = [pair_of(candidates, by_chance, query) for query in queries]
    again = [pair_of(candidates[::-1], by_chance, query) for query in queries]
    assert pairs == again
    assert (
        {pair.chosen_candidate for pair in pairs}
        == {pair.rejected_candidate for pair in pairs}
        == set("abcdef")
    )
    assert all(pair.chosen_candidate != pair.rejected_candidate for pair in pairs)
    assert any(pair.chosen_score < pair.rejected_score for pair in pairs), "chance asks for no gap"


def test_a_pair_comes_back_from_its_record():
    pair = pair_of([candidate("a", 0.5, 0.6), candidate("b", 0.2, 0.7)])
    record = json.loads(json.dumps({**dataclasses.asdict(pair), "recipe": "spr"}))
    assert PreferencePair.from_record(record) == pair


def test_every_name_of_ours_is_found_and_another_is_one_line():
    for name in OURS:
        assert find_pairing(SPRConfig(spr=True, spr_pairing=[name], spr_min_gap=0.5))
    with pytest.raises(
        UserError, match="--spr_pairing best: no plugin has it; ours are best_worst, repaired"
    ):
        find_pairing(SPRConfig(spr=True, spr_pairing=["best_worst=0.5", "best=0.5"]))


# --- an answer against itself


REPAIRED = functools.partial(pair_of, pairing=repaired_over_said)


def test_repaired_is_an_answer_over_itself_as_it_was_written():
    rows = [candidate("a", 0.5, 0.6), candidate("b", 0.2, 0.7), candidate("c", 0.1, 0.3)]
    pair = REPAIRED(rows)
    assert pair == REPAIRED(rows[::-1])
    assert (pair.chosen, pair.rejected) == ("refined b", "text b")
    assert (pair.chosen_score, pair.rejected_score) == (0.7, 0.2)
    assert pair.chosen_candidate == pair.rejected_candidate == "b"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([candidate("a", 0.5, 0.6)], "a"),  # one answer is enough
        ([candidate("a", 0.9, 0.9, "same", " same"), candidate("b", 0.5, 0.6)], "b"),
        ([candidate("a", 0.9, 0.95, not_rejectable="right"), candidate("b", 0.5, 0.6)], "b"),
        ([candidate("a", 0.5, 0.9, not_choosable="cannot_cut"), candidate("b", 0.5, 0.6)], "b"),
        ([candidate("a", 0.55, 0.6), candidate("b", 0.4, 0.5)], "b"),  # a gap of a tenth at least
        ([candidate("a", 0.9, 0.9, "same", "same"), candidate("b", None, None)], "chosen_equals_rejected"),
        ([candidate("a", 0.9, 0.8), candidate("b", 0.5, 0.55)], "gap_too_small"),
        ([candidate("a", 0.5, 0.6, not_rejectable="right")], "right"),
        ([candidate("a", 0.5, 0.6, not_rejectable="right"), candidate("b", 0.5, None)], "none_worse"),
        ([candidate("a", None, None)], "too_few_valid"),
        ([], "too_few_valid"),
    ],
)
def test_which_answer_is_paired_with_itself(rows, found):
    pair = REPAIRED(rows, min_gap=0.1 - 1e-9)
    assert (pair if isinstance(pair, str) else pair.chosen_candidate) == found


# --- of one length


EQUAL = functools.partial(pair_of, pairing=equally_long)


def test_of_answers_of_one_length_the_furthest_apart_are_paired():
    rows = [
        candidate("a", 0.5, 0.9, "x" * 100, "x" * 40),  # the best has no like
        candidate("b", 0.4, 0.8, "y" * 90, "y" * 100),
        candidate("c", 0.1, 0.3, "z" * 20, "z" * 70),  # nor has the worst
    ]
    pair = EQUAL(rows)
    assert pair == EQUAL(rows[::-1])
    assert (pair.chosen_candidate, pair.rejected_candidate) == ("b", "b")
    assert abs(len(pair.chosen) - len(pair.rejected)) <= 10


@pytest.mark.parametrize(
    ("rejected", "found"),
    [(89, "no_equal_length"), (90, "b"), (100, "b"), (111, "b"), (112, "no_equal_length")],
)
def test_a_tenth_of_the_longer_one_is_one_length(rejected, found):
    rows = [
        candidate("a", 0.5, 0.9, "x" * 300, "x" * 100),
        candidate("b", 0.4, None, "y" * rejected, not_choosable="no_box_survived"),
    ]
    pair = EQUAL(rows)
    assert (pair if isinstance(pair, str) else pair.rejected_candidate) == found


def test_of_one_length_but_no_better_is_a_gap_too_small():
    rows = [candidate("a", 0.5, 0.5, "x" * 9, "z" * 9), candidate("b", 0.6, 0.4, "y" * 9, "y" * 9)]
    assert EQUAL(rows) == "gap_too_small" and EQUAL(rows[:1] * 1) == "too_few_valid"
    rows = [candidate(id, 0.5, 0.6, "one text of words", "one text  of words") for id in "ab"]
    assert EQUAL(rows) == "chosen_equals_rejected"


# --- shares of several


def dealt(*words, count=400):
    """How many of so many queries get each kind of pair."""
    pairing = find_pairing(SPRConfig(spr=True, spr_pairing=list(words)))
    rows = [candidate("a", 0.5, 0.9), candidate("b", 0.1, 0.2)]
    queries = [dataclasses.replace(QUERY, id=str(seed), seed=seed) for seed in range(count)]
    pairs = [make_pair(query, "Describe.", rows, pairing) for query in queries]
    assert pairs == [make_pair(query, "Describe.", rows[::-1], pairing) for query in queries]
    return sum(pair.chosen_candidate == pair.rejected_candidate for pair in pairs)


def test_a_query_is_dealt_one_of_several_pairings_by_their_shares():
    assert 160 < dealt("best_worst=0.5", "repaired=0.5") < 240
    assert 60 < dealt("repaired=1", "best_worst=3") < 140
    assert dealt("repaired", "best_worst=0") == 400
    assert dealt("repaired=2") == 400 and dealt("best_worst") == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["best_worst=x"], "NAME=SHARE"),
        (["best_worst=-1", "repaired=2"], "NAME=SHARE"),
        (["best_worst=0", "repaired=0"], "not all of them 0"),
        (["repaired", "repaired=2"], "each once"),
        (["=1"], "NAME=SHARE"),
        ([], "NAME=SHARE"),
        (["sft=0.5", "repaired=0.5"], "cannot be mixed"),
    ],
)
def test_shares_that_make_no_sense_are_one_line(words, says):
    with pytest.raises(UserError, match=f"--spr_pairing .*{says}"):
        SPRConfig(spr=True, spr_pairing=words)


SCORES = st.none() | st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(SCORES, SCORES), max_size=6), st.randoms())
def test_a_pair_is_the_extremes_whatever_the_order(rows, shuffler):
    candidates = [candidate(str(index), *row) for index, row in enumerate(rows)]
    pair = pair_of(candidates)
    shuffler.shuffle(candidates)
    assert pair_of(candidates) == pair
    if isinstance(pair, PreferencePair):
        assert pair.chosen_score > pair.rejected_score and pair.chosen != pair.rejected
        assert pair.chosen_score == max(
            refined for initial, refined in rows if initial is not None and refined is not None
        )
        assert pair.rejected_score == min(initial for initial, _ in rows if initial is not None)
