"""The scores: formulas against naive references and by hand, pooling of ground truth, splitting of long text, the scorer."""


import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spr_plugin.recipes.spr import scoring
from spr_plugin.annotations import AnnotatedImage, Annotation
from spr_plugin.boxes import Box, Space, iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import llava
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import manager
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.recipes.spr.scoring import (
    SPRScorer,
    ground_truth,
    localization_score,
    semantic_score,
    split_text,
    strip_coordinates,
    suppressed,
    total_score,
)

SPACE = Space.pixels(100, 100)
PICTURE = Image.new("RGB", (100, 100))
FORM = llava("square")


def query(boxes=((0, 0, 20, 20), (40, 40, 60, 60)), region=(0, 0, 100, 100)):
    annotations = tuple(Annotation(n, f"thing {n}", Box(*box, SPACE)) for n, box in enumerate(boxes))
    return region_query(AnnotatedImage("7", "/a.jpg", 100, 100, annotations), Box(*region, SPACE), 0)


# --- formulas


def reference_s_loc(truth, predicted):
    """S_loc = 1/n sum_i max_j p[i, j], written out."""
    total = 0.0
    for gt in truth:
        p = [iou_matrix([gt], [pred])[0, 0] for pred in predicted]
        total += max([value if value >= 0.5 else 0.0 for value in p] + [0.0])
    return total / len(truth)


BOX = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6)).map(lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))
BOXES = st.lists(BOX, max_size=6)


@given(st.lists(BOX, min_size=1, max_size=6), BOXES)
def test_s_loc_agrees_with_the_formula_written_out(truth, predicted):
    score = localization_score(truth, predicted)
    assert score == pytest.approx(reference_s_loc(truth, predicted)) and 0 <= score <= 1


@given(st.lists(BOX, min_size=1, max_size=6), BOXES, BOX)
def test_s_loc_rewards_completeness_and_is_one_for_the_truth_itself(truth, predicted, more):
    assert localization_score(truth, [*predicted, more]) >= localization_score(truth, predicted)
    assert localization_score(truth, truth) == 1.0


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


def test_detector_boxes_outside_the_region_are_not_its_truth():
    asked = query(region=(0, 0, 60, 60))
    found = [detection((50, 10, 68, 20)), detection((52, 30, 68, 40), 0.4), detection((55, 0, 75, 10))]
    assert ground_truth(asked, found).tolist()[2:] == [[50, 10, 68, 20], [52, 30, 68, 40]]


@given(BOXES.map(lambda boxes: boxes * 2))
def test_suppression_agrees_with_the_double_loop(boxes):
    kept = []
    for box in boxes:
        if all(iou_matrix([box], [other])[0, 0] < 0.5 for other in kept):
            kept.append(box)
    assert suppressed(boxes).tolist() == [list(map(float, box)) for box in kept]


@given(st.lists(BOX, min_size=5, max_size=8, unique=True), st.lists(st.tuples(BOX, st.integers(1, 9)), max_size=8))
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


# --- long text


def words_of(text):
    return len(text.split())


def test_text_within_the_limit_is_one_part():
    assert split_text("One two. Three four.", words_of, 4) == [("One two. Three four.", 4)]
    assert split_text("", words_of, 4) == []


def test_text_over_the_limit_is_split_at_sentences_then_words():
    assert split_text("One two. Three four. Five!", words_of, 3) == [("One two.", 2), ("Three four. Five!", 3)]
    assert split_text("A. one two three four five. B c.", words_of, 3) == [("A.", 1), ("one two three", 3), ("four five.", 2), ("B c.", 2)]


@given(st.text(st.sampled_from("ab .!?\n"), max_size=80), st.integers(1, 9))
def test_no_word_is_lost_and_no_part_is_too_long(text, limit):
    parts = split_text(text, len, limit)
    assert all(0 < count == len(part) <= limit for part, count in parts)
    assert "".join("".join(part for part, _ in parts).split()) == "".join(text.split())


# --- the scorer


class WordCount:
    """A similarity that can be computed by hand: s_crop is 0.1 a word, s_local 0.2 a word."""

    def __init__(self):
        self.asked = []

    def score(self, picture, asked):
        self.asked += asked
        return [(0.1 * words_of(text), 0.2 * words_of(text)) for _, text in asked]


class Finder:
    """A detector that finds a fixed box for every "cat"."""

    def __init__(self):
        self.asked = []

    def detect(self, image, phrases):
        self.asked.append(list(phrases))
        return [("cat", Box(70, 70, 90, 90, SPACE), 0.8)] if "cat" in phrases else []


def score(scorer, texts, asked=None, picture=PICTURE, pooled=None):
    """The scores of one region's texts, on the truth of these or of `pooled` texts."""
    asked = asked or query()
    return scorer.score([asked], picture, [texts], FORM, scorer.truth([asked], picture, [pooled or texts], FORM))[0]


def test_the_scorer_puts_the_terms_together():
    texts = ["a dog [0.0, 0.0, 0.2, 0.2]", "a dog [0.0, 0.0, 0.2, 0.2] and a cup [0.4, 0.4, 0.6, 0.5]"]
    one, two = score(SPRScorer(WordCount(), lam=0.8), texts)
    assert one["terms"] == pytest.approx({"s_crop": 0.2, "s_local": 0.4, "s_sem": 0.3, "s_loc": 0.5})
    assert one["total"] == pytest.approx(0.8 * 0.3 + 0.2 * 0.5) and one["valid"] and one["reason"] is None
    assert two["terms"]["s_loc"] == pytest.approx((1 + 0.5) / 2)


def test_the_similarity_gets_words_without_coordinates():
    similarity = WordCount()
    score(SPRScorer(similarity), ["a dog [0.0, 0.0, 0.2, 0.2] runs"])
    assert similarity.asked == [(query().region, "a dog runs")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("[0.0, 0.0, 0.2, 0.2]", "empty"),
        ("a dog", "no_box"),
        ("a dog [0.0, 0.0, 0.2]", "unparsable"),
        ("a dog [3, 4, 5, 6]", "unparsable"),
    ],
)
def test_invalid_texts_get_their_reason_and_do_not_touch_the_others(text, reason):
    good = "a dog [0.0, 0.0, 0.2, 0.2]"
    alone = score(SPRScorer(WordCount()), [good])
    bad, beside = score(SPRScorer(WordCount()), [text, good])
    assert bad == {"terms": {}, "total": 0.0, "valid": False, "reason": reason}
    assert [beside] == alone
    assert score(SPRScorer(WordCount()), [text]) == [bad]


TEXTS = ["a dog [0.0, 0.0, 0.2, 0.2]", "a dog [0.0, 0.0, 0.2, 0.2] and a cat [0.9, 0.0, 1.0, 0.1]"]


def test_detector_boxes_join_the_predictions_of_who_named_them_and_everybodys_truth():
    finder = Finder()
    scorer = SPRScorer(WordCount(), finder)
    one, two = score(scorer, TEXTS)
    assert finder.asked == [["cat", "dog"]]
    assert one["terms"]["s_loc"] == pytest.approx(1 / 3) and two["terms"]["s_loc"] == pytest.approx(2 / 3)
    # A text scored later is measured on the same truth when it is given.
    assert score(scorer, TEXTS[:1], pooled=TEXTS) == [one]


def test_the_regions_of_a_picture_are_asked_together_and_scored_apart():
    """One call of each model a picture; a region's truth holds only what its own texts name."""
    finder, similarity = Finder(), WordCount()
    queries = [query(), query(region=(0, 0, 50, 50))]
    texts = [TEXTS[1:], TEXTS[:1] * 2]
    scorer = SPRScorer(similarity, finder)
    truths = scorer.truth(queries, PICTURE, texts, FORM)
    together = scorer.score(queries, PICTURE, texts, FORM, truths)
    assert [len(truth) for truth in truths] == [3, 1]
    assert finder.asked == [["cat", "dog"]] and len(similarity.asked) == len(set(similarity.asked)) == 2
    apart = [score(SPRScorer(WordCount(), Finder()), said, asked) for asked, said in zip(queries, texts)]
    assert together == apart


def test_a_new_picture_is_looked_at_anew():
    finder = Finder()
    scorer = SPRScorer(WordCount(), finder)
    score(scorer, TEXTS)
    score(scorer, TEXTS, picture=PICTURE.copy())
    assert finder.asked == [["cat", "dog"]] * 2


class Finds:
    """A detector that returns what it is told, whatever is asked."""

    def __init__(self, *rows):
        self.rows = rows

    def detect(self, picture, phrases):
        return [(phrases[0], Box(*box, SPACE), value) for box, value in self.rows]


NOWHERE = [(10, 10, 10, 30), (30, 30, 20, 20), (float("nan"), 0, 9, 9), (200, 200, 300, 300), (-9, -9, 0.5, 50)]


@pytest.mark.parametrize("rows", [[], [(box, 0.9) for box in NOWHERE], [((70, 70, 90, 90), float("nan"))]], ids=["nothing", "no boxes", "no score"])
def test_a_detector_that_finds_nothing_usable_changes_nothing(rows):
    assert score(SPRScorer(WordCount(), Finds(*rows)), TEXTS) == score(SPRScorer(WordCount()), TEXTS)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_cosines_that_are_not_finite_are_no_score(broken):
    class Broken(WordCount):
        def score(self, picture, asked):
            return [(broken, 0.5) for _ in asked]

    scores = score(SPRScorer(Broken()), TEXTS)
    assert [one["reason"] for one in scores] == ["not_finite"] * len(TEXTS)
    assert all(one["total"] == 0 and not one["valid"] and not one["terms"] for one in scores)


def test_infinite_boxes_are_clipped():
    scorer = SPRScorer(WordCount(), Finds(((-1e9, 60, float("inf"), float("inf")), 0.9)))
    [truth] = scorer.truth([query()], PICTURE, [TEXTS], FORM)
    assert truth.tolist()[2:] == [[0, 60, 100, 100]]


def test_a_detector_that_returns_5000_boxes():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 100, (5000, 2, 2)), axis=2)
    rows = [((x1, y1, x2, y2), 0.5) for (x1, x2), (y1, y2) in corners.tolist()]
    scorer = SPRScorer(WordCount(), Finds(*rows))
    [truth] = scorer.truth([query()], PICTURE, [TEXTS], FORM)
    assert truth[:2].tolist() == [[0, 0, 20, 20], [40, 40, 60, 60]] and len(truth) > 100
    overlaps = iou_matrix(truth[2:], truth[2:]) - np.eye(len(truth) - 2)
    assert overlaps.max() < 0.5 and all(one["valid"] and 0 < one["terms"]["s_loc"] <= 1 for one in score(scorer, TEXTS))


def test_lambda_is_a_weight():
    with pytest.raises(ValueError, match="1.5"):
        SPRScorer(WordCount(), lam=1.5)


def test_without_the_local_half_the_semantic_score_is_the_crop_s():
    text = "a dog [0.0, 0.0, 0.2, 0.2] runs"
    [whole] = score(SPRScorer(WordCount()), [text])
    [crop] = score(SPRScorer(WordCount(), local=False), [text])
    changed = {key for key in whole["terms"] if whole["terms"][key] != crop["terms"][key]}
    assert crop["terms"]["s_sem"] == crop["terms"]["s_crop"] and changed == {"s_sem"}


# --- the hook


class Models:
    """A plugin with both models, as small as they can be."""

    @hookimpl
    def spr_similarity(self, config, device):
        return WordCount() if config.spr_clip == "words" else None

    @hookimpl
    def spr_detector(self, config, device):
        return Finds() if config.spr_detector == "nothing" else None


@pytest.fixture
def models():
    manager().register(plugin := Models(), "models")
    yield
    manager().unregister(plugin)


def config(**flags):
    return SPRConfig(spr=True, **{"spr_clip": "words", "spr_lambda": 0.7, **flags})


def test_the_hook_builds_the_scorer_of_the_flags(models):
    scorer = scoring.spr_scorer(config(spr_detector="nothing"), "cpu")
    assert isinstance(scorer.similarity.given, WordCount) and isinstance(scorer.detector.given, Finds)
    assert scorer.lam == 0.7
    assert scorer.local and not scoring.spr_scorer(config(spr_no_local=True), "cpu").local
    assert scoring.spr_scorer(config(), "cpu").detector is None
    assert scoring.spr_scorer(config(spr_detector="nothing", spr_no_detector=True), "cpu").detector is None
    assert scoring.spr_scorer(config(spr_scorer="other"), "cpu") is None


def test_the_hook_names_the_flag_that_nobody_serves(models):
    wrong = ("clip", None, ": this command names no vision tower"), ("clip", "x", "x: not"), ("detector", "dino", "dino: no")
    for flag, value, words in wrong:
        with pytest.raises(UserError, match=f"--spr_{flag} ?{words}"):
            scoring.spr_scorer(config(**{f"spr_{flag}": value}), "cpu")
    with pytest.raises(UserError, match="--spr_scorer other: no plugin has it"):
        scoring.find_scorer(config(spr_scorer="other"), "cpu", FORM)


def test_what_a_plugin_s_models_give_is_checked_at_every_call(models):
    """A shape that is right on the made-up picture and wrong on a later one does not pass for numbers."""
    scorer = scoring.spr_scorer(config(spr_detector="nothing"), "cpu")
    scorer.similarity.given.score = lambda picture, asked: [(float("nan"), 0.0) for _ in asked]
    with pytest.raises(UserError, match="plugin models: spr_similarity, WordCount.score gives as S_crop nan"):
        score(scorer, ["a dog [0.0, 0.0, 0.2, 0.2]"])
