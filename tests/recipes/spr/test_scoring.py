"""The scores: formulas against naive references and by hand, pooling of ground truth, splitting of long text,
the scorer.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import manager
from spr_plugin.recipes.spr.scoring import (
    SPRScorer,
    duplicates,
    ground_truth,
    localization_score,
    semantic_score,
    split_text,
    spr_scorer,
    strip_coordinates,
    suppressed,
    total_score,
    truth_names,
)

from .by_hand import FORM, SPACE, query

# --- formulas


def reference_s_loc(truth, predicted):
    """S_loc = 1/n sum_i max_j p[i, j], written out."""
    total = 0.0
    for gt in truth:
        p = [iou_matrix([gt], [pred])[0, 0] for pred in predicted]
        total += max([value if value >= 0.5 else 0.0 for value in p] + [0.0])
    return total / len(truth)


BOX = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6)).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)
BOXES = st.lists(BOX, max_size=6)


@given(st.lists(BOX, min_size=1, max_size=6), BOXES)
def test_s_loc_agrees_with_the_formula_written_out(truth, predicted):
    score = localization_score(truth, predicted)
    assert score == pytest.approx(reference_s_loc(truth, predicted)) and 0 <= score <= 1


@given(st.lists(BOX, min_size=1, max_size=6), BOXES, BOX)
def test_s_loc_rewards_completeness_and_is_one_for_the_truth_itself(truth, predicted, more):
    assert localization_score(truth, [*predicted, more]) >= localization_score(truth, predicted)
    assert localization_score(truth, truth) == 1.0


@st.composite
def named_boxes(draw):
    """Truth, predictions, and whose names agree, (m, n)."""
    truth, predicted = draw(st.lists(BOX, min_size=1, max_size=5)), draw(st.lists(BOX, max_size=5))
    row = st.lists(st.booleans(), min_size=len(truth), max_size=len(truth))
    agree = draw(st.lists(row, min_size=len(predicted), max_size=len(predicted)))
    return truth, predicted, np.array(agree, dtype=bool).reshape(len(predicted), len(truth))


@given(named_boxes())
def test_s_loc_with_names_agrees_with_the_formula_written_out(given_boxes):
    """IoU counts where the names agree, and each duplicate as an object that was missed."""
    truth, predicted, agree = given_boxes
    p = [
        [iou_matrix([gt], [pred])[0, 0] if agree[j, i] else 0.0 for j, pred in enumerate(predicted)]
        for i, gt in enumerate(truth)
    ]
    p = [[value if value >= 0.5 else 0.0 for value in row] for row in p]
    total = sum(max(row, default=0.0) for row in p)
    assert localization_score(truth, predicted, agree) == pytest.approx(total / len(truth))
    # What the best of all one-to-one assignments serve; several may be of one worth.
    served = {}
    for order in itertools.permutations(range(max(len(truth), len(predicted)))):
        found = [p[i][j] for i, j in enumerate(order) if i < len(truth) and j < len(predicted)]
        served.setdefault(round(sum(found), 9), set()).add(sum(value > 0 for value in found))
    on_objects = sum(any(row[j] for row in p) for j in range(len(predicted)))
    twice = duplicates(truth, predicted, agree)
    assert on_objects - twice in served[max(served)]
    assert localization_score(truth, predicted, agree, twice) == pytest.approx(total / (len(truth) + twice))


def test_names_and_duplicates_by_hand():
    truth = [(0, 0, 10, 10), (20, 20, 30, 30)]
    predicted = [(0, 0, 10, 10), (0, 0, 10, 9), (20, 20, 30, 28), (60, 60, 70, 70)]
    agree = np.array([[False, True], [True, True], [True, True], [True, True]])
    assert localization_score(truth, predicted) == pytest.approx((1 + 0.8) / 2)
    assert localization_score(truth, predicted, agree) == pytest.approx((0.9 + 0.8) / 2)
    # The second box lies on the first one's object; under names the first one is for nothing.
    assert duplicates(truth, predicted) == 1 and duplicates(truth, predicted, agree) == 0
    assert localization_score(truth, predicted, repeated=1) == pytest.approx((1 + 0.8) / 3)
    assert duplicates(truth, []) == duplicates(truth, [(60, 60, 70, 70)] * 2) == 0
    assert duplicates(truth, [truth[0]] * 3) == 2
    with pytest.raises(ValueError, match="there is none"):
        localization_score([], predicted, np.zeros((4, 0), dtype=bool))


def test_s_loc_by_hand():
    truth = [(0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)]
    # IoU 1.0; IoU 0.5 exactly (counts); IoU 0.4 (does not).
    predicted = [(0, 0, 10, 10), (20, 20, 30, 25), (50, 50, 60, 54)]
    assert localization_score(truth, predicted) == pytest.approx((1 + 0.5 + 0) / 3)
    assert localization_score(truth, []) == 0.0
    with pytest.raises(ValueError, match="there is none"):
        localization_score([], predicted)


def test_s_sem_and_the_total_by_hand():
    assert semantic_score(0.2, 0.4) == pytest.approx(0.3)
    assert total_score(0.8, 0.3, 0.9) == pytest.approx(0.42)
    assert total_score(0.0, 0.3, 0.9) == 0.9 and total_score(1.0, 0.3, 0.9) == 0.3


# --- T


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a dog [0.1, 0.2, 0.3, 0.4] and a cat [0.5, 0.5, 0.", "a dog and a cat"),
        ("[0.1, 0.2, 0.3, 0.4].", ""),
        ("  ", ""),
        ("no box", "no box"),
    ],
)
def test_strip_coordinates(text, words):
    assert strip_coordinates(text, FORM.parse(text, 100, 100), FORM) == words


# --- ground truth


def detection(box, score=0.5, phrase="dog"):
    return (phrase, Box(*box, SPACE), score)


def test_without_detector_the_truth_is_the_annotations():
    assert ground_truth(query()).tolist() == [[0, 0, 20, 20], [40, 40, 60, 60]]


def test_detector_boxes_join_after_suppression_and_beside_annotations_only():
    found = [
        detection((1, 1, 21, 21), 0.9),  # an annotation
        detection((70, 70, 90, 90), 0.6),  # suppressed by the next
        detection((71, 70, 90, 90), 0.7),
        detection((70, 10, 80, 20), 0.2),
        detection((70, 10, 80, 20), 0.2, "the same again"),
    ]
    truth = ground_truth(query(), found).tolist()
    assert truth == [[0, 0, 20, 20], [40, 40, 60, 60], [71, 70, 90, 90], [70, 10, 80, 20]]
    assert ground_truth(query(), found[::-1]).tolist() == truth


def test_boxes_of_the_truth_are_called_by_label_or_by_the_phrase_that_found_them():
    found = [
        detection((1, 1, 21, 21), 0.9, "cat"),  # an annotation
        detection((71, 70, 90, 90), 0.7, "dog"),
        detection((71, 70, 90, 90), 0.9, "wolf"),
        detection((70, 10, 80, 20), 0.2, "b"),
        detection((70, 10, 80, 20), 0.2, "a"),
    ]
    for rows in (found, found[::-1]):
        truth = ground_truth(query(), rows)
        assert truth_names(query(), truth, rows) == ["thing 0", "thing 1", "wolf", "a"]


def test_detector_boxes_outside_the_region_are_not_its_truth():
    asked = query(region=(0, 0, 60, 60))
    found = [detection((50, 10, 68, 20)), detection((52, 30, 68, 40), 0.4), detection((55, 0, 75, 10))]
    assert ground_truth(asked, found).tolist()[2:] == [[50, 10, 68, 20], [52, 30, 68, 40]]


@pytest.mark.parametrize("x, joins", [(60, True), (60.1, False)])
def test_a_box_that_lies_in_the_region_with_exactly_half_of_its_area_is_of_its_truth(x, joins):
    """20 x 20 px at each side of a region that begins nowhere near 0."""
    asked = query(boxes=[(30, 30, 35, 35)], region=(20, 30, 70, 90))
    right, below = (x, 40, x + 20, 60), (40, x + 20, 60, x + 40)
    left, above = (70 - x, 40, 90 - x, 60), (40, 80 - x, 60, 100 - x)
    for box in (right, below, left, above):
        assert (len(ground_truth(asked, [detection(box)])) == 2) == joins, box
    far = (60, 80, 80, 100)  # a quarter
    assert len(ground_truth(asked, [detection(far)])) == 1


def test_an_iou_of_exactly_a_half_is_the_same_object():
    """With an annotation, with a better detection, and in the score; a little less is another one."""
    same, other = (0, 0, 20, 10), (0, 0, 20, 9.9)
    assert (
        len(ground_truth(query(), [detection(same)])) == 2
        and len(ground_truth(query(), [detection(other)])) == 3
    )
    assert len(suppressed([(0, 0, 20, 20), same])) == 1 and len(suppressed([(0, 0, 20, 20), other])) == 2
    assert len(suppressed([(0, 0, 20, 20), (70, 70, 90, 90), same, other])) == 3
    assert (
        localization_score([(0, 0, 20, 20)], [same]) == 0.5
        and localization_score([(0, 0, 20, 20)], [other]) == 0.0
    )


@given(BOXES.map(lambda boxes: boxes * 2))
def test_suppression_agrees_with_the_double_loop(boxes):
    kept = []
    for box in boxes:
        if all(iou_matrix([box], [other])[0, 0] < 0.5 for other in kept):
            kept.append(box)
    assert suppressed(boxes).tolist() == [list(map(float, box)) for box in kept]


@given(
    st.lists(BOX, min_size=5, max_size=8, unique=True),
    st.lists(st.tuples(BOX, st.integers(1, 9)), max_size=8),
)
def test_annotations_are_never_dropped_and_added_boxes_are_apart(annotated, found):
    asked = query(boxes=annotated)
    truth = ground_truth(asked, [detection(box, score / 10) for box, score in found])
    assert truth[: len(annotated)].tolist() == [list(map(float, box)) for box in annotated]
    added = truth[len(annotated) :]
    overlaps = iou_matrix(added, truth)
    for row in range(len(added)):
        overlaps[row, len(annotated) + row] = 0
    assert (overlaps < 0.5).all()
    # Everything that was found is in the truth, up to IoU 0.5 with a box of it or with a better detection.
    assert len(truth) >= len(annotated)


def test_a_thin_detection_beside_the_region_is_no_truth():
    """However thin: none of it lies inside."""
    asked = query()
    _, _, right, low = asked.region.pixels()
    for thin in ((right + 5, 20, right + 5.005, 29), (20, low + 5, 29, low + 5.005)):
        assert len(ground_truth(asked, [detection(thin, 0.9)])) == len(ground_truth(asked))


# --- long text


def words_of(text):
    return len(text.split())


def test_text_within_the_limit_is_one_part():
    assert split_text("One two. Three four.", words_of, 4) == [("One two. Three four.", 4)]
    assert split_text("", words_of, 4) == []


def test_text_over_the_limit_is_split_at_sentences_then_words():
    assert split_text("One two. Three four. Five!", words_of, 3) == [
        ("One two.", 2),
        ("Three four. Five!", 3),
    ]
    assert split_text("A. one two three four five. B c.", words_of, 3) == [
        ("A.", 1),
        ("one two three", 3),
        ("four five.", 2),
        ("B c.", 2),
    ]


def test_a_sentence_at_the_limit_stays_as_it_is_written():
    """Its words are not taken apart and joined again."""
    assert split_text("Four. One  two\nthree.", words_of, 3) == [("Four.", 1), ("One  two\nthree.", 3)]


def test_a_word_over_the_limit_is_split_between_characters_and_one_at_it_is_not():
    assert split_text("ab abcd ab", len, 4) == [("ab", 2), ("abcd", 4), ("ab", 2)]
    assert split_text("ab abcde", len, 4) == [("ab", 2), ("abcd", 4), ("e", 1)]
    assert split_text("ab", lambda text: 3 * len(text), 2) == [("a", 3), ("b", 3)]  # a character is the least
    assert split_text("abcd", len, 4) == [("abcd", 4)]


@given(st.text(st.sampled_from("ab .!?\n"), max_size=80), st.integers(1, 9))
def test_no_word_is_lost_and_no_part_is_too_long(text, limit):
    parts = split_text(text, len, limit)
    assert all(0 < count == len(part) <= limit for part, count in parts)
    assert "".join("".join(part for part, _ in parts).split()) == "".join(text.split())


# --- the scorer


def test_lambda_is_a_weight():
    assert [SPRScorer(None, lam=lam).lam for lam in (0, 1)] == [0, 1] and SPRScorer(None).lam == 0.8
    assert SPRScorer(None).local
    for lam in (1.01, -0.01):
        with pytest.raises(ValueError, match=str(lam)):
            SPRScorer(None, lam=lam)


@pytest.fixture
def similarity():
    """``similarity(given)``: a plugin that answers ``spr_similarity`` with it, until the test ends."""

    class Lab:
        @hookimpl(tryfirst=True)
        def spr_similarity(self, config, device):
            return self.given

    lab = Lab()
    manager().register(lab)
    yield lambda given: setattr(lab, "given", given)
    manager().unregister(lab)


class Cosines:
    def score(self, picture, asked):
        return [(0.1, 0.2)] * len(asked)


def test_the_hook_s_scorer_is_that_of_the_flags(similarity):
    similarity(Cosines())
    made = spr_scorer(SPRConfig(spr_lambda=0.3), "cpu")
    assert (made.lam, made.local) == (0.3, True)
    assert spr_scorer(SPRConfig(spr_no_local=True), "cpu").local is False
    assert spr_scorer(SPRConfig(spr_scorer="lab"), "cpu") is None


def test_a_command_without_an_image_text_model_is_told_how_to_name_one(similarity):
    similarity(None)
    with pytest.raises(UserError, match="^--spr_clip: this command names no vision tower"):
        spr_scorer(SPRConfig(), "cpu")


def test_an_image_text_model_of_a_plugin_needs_no_clip(similarity):
    similarity(Cosines())
    assert SPRConfig().spr_clip is None and spr_scorer(SPRConfig(), "cpu") is not None
