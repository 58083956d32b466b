"""Judging by hand: what is scored, on which truth, and what becomes of texts that cannot be."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from spr_plugin.boxes import iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import llava
from spr_plugin.hookspecs import hookimpl
from spr_plugin.judging import judge_pictures
from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.plugins import manager
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import refine
from tests.paper import PAPER

from .by_hand import FORM, PICTURE, TEXTS, Finder, Finds, WordCount, judge, query, recipe


def test_the_terms_are_put_together():
    texts = ["a dog [0.0, 0.0, 0.2, 0.2]", "a dog [0.0, 0.0, 0.2, 0.2] and a cup [0.4, 0.4, 0.6, 0.5]"]
    one, two = judge(recipe(), texts).answers
    assert one.terms == pytest.approx({"s_crop": 0.2, "s_local": 0.4, "s_sem": 0.3, "s_loc": 0.5})
    assert one.score == pytest.approx(0.8 * 0.3 + 0.2 * 0.5) and one.reason is None
    assert two.terms["s_loc"] == pytest.approx((1 + 0.5) / 2)


def test_an_answer_is_repaired_and_scored_again_on_the_same_truth():
    text = "a dog [0.0, 0.0, 0.2, 0.18] and a cup [0.8, 0.8, 0.9, 0.9]"
    judged = judge(recipe(spr_min_kept=0.5), [text])
    [one] = judged.answers
    assert judged.truth == [[0, 0, 20, 20], [40, 40, 60, 60]]
    assert one.text == text and one.repaired == "a dog [0.0, 0.0, 0.2, 0.2] and a cup"
    assert one.terms["s_loc"] == pytest.approx(0.45) and one.repaired_terms["s_loc"] == pytest.approx(0.5)
    assert one.repaired_terms["kept"] == 0.5 and one.repaired_score > one.score
    assert (one.not_choosable, one.not_rejectable) == (None, None)


@pytest.mark.parametrize(
    ("least", "reason"), [(0.5, None), (0.51, "too_few_boxes_kept"), (1.0, "too_few_boxes_kept")]
)
def test_a_text_that_lost_too_many_boxes_is_not_choosable(least, reason):
    """At the share itself it is."""
    text = "a dog [0.0, 0.0, 0.2, 0.2] and a cup [0.8, 0.8, 0.9, 0.9]"
    [one] = judge(recipe(spr_min_kept=least), [text]).answers
    assert (one.not_choosable, one.not_rejectable) == (reason, None)


def test_a_text_of_which_no_box_survives_is_not_choosable():
    [one] = judge(recipe(), ["a dog [0.8, 0.8, 0.9, 0.9]"]).answers
    assert (one.not_choosable, one.reason, one.repaired, one.repaired_score) == (
        "no_box_survived",
        None,
        "a dog",
        None,
    )


def test_items_that_cannot_part_are_not_choosable():
    """The word comes before that of too few boxes, and after that of none."""
    mixed = "a dog [0.0, 0.0, 0.2, 0.2] chases a cup [0.8, 0.8, 0.9, 0.9]"
    lost = "a dog [0.8, 0.8, 0.9, 0.9] chases a cup [0.7, 0.8, 0.9, 0.9]"
    listed = "a dog [0.0, 0.0, 0.2, 0.18] and a cup [0.8, 0.8, 0.9, 0.9]"
    for least, few in ((0.5, None), (0.8, "too_few_boxes_kept")):
        judged = judge(recipe(spr_repair="item", spr_min_kept=least), [mixed, lost, listed]).answers
        assert [one.not_choosable for one in judged] == ["cannot_cut", "no_box_survived", few]
        assert [one.not_rejectable for one in judged] == [None] * 3
    assert [one.repaired for one in judged[1:]] == ["", "a dog [0.0, 0.0, 0.2, 0.2]"]
    assert judged[2].repaired_terms["kept"] == 0.5 and judged[2].repaired_score is not None


def named(*labels):
    """The query whose two objects are called so."""
    asked = query()
    truth = tuple(replace(one, label=label) for one, label in zip(asked.truth, labels))
    return replace(asked, truth=truth)


class Synonyms(WordCount):
    """Takes a puppy and a dog for alike."""

    def likeness(self, first, second):
        return np.array(
            [[0.92 if {one, other} == {"puppy", "dog"} else 0.5 for other in second] for one in first]
        )


def test_a_true_box_behind_a_wrong_name_counts_for_nothing_where_names_are_asked():
    text = "a cup [0.0, 0.0, 0.2, 0.2] and the old cups [0.4, 0.4, 0.6, 0.6]"
    asked = named("dog", "red cup")
    [by_iou] = judge(recipe(), [text], asked).answers
    [by_name] = judge(recipe(spr_match="name", spr_min_kept=0.5), [text], asked).answers
    assert by_iou.terms["s_loc"] == pytest.approx(1) and by_name.terms["s_loc"] == pytest.approx(0.5)
    assert by_name.repaired == "a cup and the old cups [0.4, 0.4, 0.6, 0.6]" and by_iou.repaired == text
    assert by_name.repaired_terms["s_loc"] == pytest.approx(0.5)
    ready = recipe(spr_match="name")
    assert ready.measure([text], [asked])["s_loc"] == pytest.approx(0.5)
    assert recipe().measure([text], [asked])["s_loc"] == pytest.approx(1)


def test_names_without_a_common_noun_agree_from_the_threshold_on():
    """A similarity model that knows no texts leaves it at the nouns; the probe asks no model."""
    text, asked = "a puppy [0.0, 0.0, 0.2, 0.2]", named("dog", "cup")
    for similarity, threshold, s_loc in (
        (Synonyms(), 0.92, 0.5),
        (Synonyms(), 0.93, 0.0),
        (WordCount(), 0.1, 0.0),
    ):
        ready = recipe(similarity, spr_match="name", spr_match_threshold=threshold)
        [one] = judge(ready, [text], asked).answers
        assert one.terms["s_loc"] == pytest.approx(s_loc)
        assert ready.measure([text], [asked])["s_loc"] == 0.0


def test_annotations_and_boxes_without_a_name_are_matched_by_iou():
    ready = recipe(spr_match="name")
    [one] = judge(
        ready, ["a cup [0.0, 0.0, 0.2, 0.2] and a dog [0.4, 0.4, 0.6, 0.6]"], named("7", "cup")
    ).answers
    assert one.terms["s_loc"] == pytest.approx(0.5)
    [one] = judge(ready, ["[0.4, 0.4, 0.6, 0.6] is what I see."], named("dog", "cup")).answers
    assert one.terms["s_loc"] == pytest.approx(0.5)


def test_what_a_detector_finds_has_the_name_that_it_was_asked_for():
    """Its box is of the truth under "cat", and is a prediction of whoever said so."""
    right, wrong = TEXTS[1], "a cat [0.9, 0.0, 1.0, 0.1] and a cup [0.7, 0.7, 0.9, 0.9]"
    ready = recipe(detector=Finder(), spr_match="name")
    one, two = judge(ready, [right, wrong], named("dog", "mug")).answers
    assert one.terms["s_loc"] == pytest.approx(2 / 3)  # dog as written, cat as found
    assert two.terms["s_loc"] == pytest.approx(1 / 3) and two.repaired == "a cat and a cup"


def test_a_duplicate_counts_where_asked_and_a_detector_s_box_is_none():
    text = "a cat [0.7, 0.7, 0.9, 0.9], a dog [0.0, 0.0, 0.2, 0.2] and a dog [0.0, 0.0, 0.2, 0.18]"
    for flags, n in (({}, 3), ({"spr_count_duplicates": True}, 4)):
        ready = recipe(detector=Finder(), **flags)
        [one] = judge(ready, [text]).answers
        assert one.terms["s_loc"] == pytest.approx(2 / n)
        assert one.repaired_terms["s_loc"] == pytest.approx(2 / 3), "of one object one box is left"
        assert ready.measure([text], [query()])["s_loc"] == pytest.approx(1 / (n - 1))


VAGUE = {
    "a dog": "no_box",
    "Some things are here.": "no_box",
    "a dog [0.0, 0.0, 0.2]": "unparsable",
    "a dog [3, 4, 5, 6]": "unparsable",
}


@pytest.mark.parametrize("repair", ["coordinates", "item", "none"])
@pytest.mark.parametrize("text", VAGUE)
def test_vague_answers_have_their_words_worth_and_are_only_rejected(text, repair):
    words = WordCount()
    ready = recipe(words, spr_reject_vague=True, spr_repair=repair)
    good = "a dog [0.0, 0.0, 0.2, 0.2]"
    one, beside = judge(ready, [text, good]).answers
    assert (one.reason, one.not_choosable, one.not_rejectable) == (None, VAGUE[text], None)
    said = FORM.words(text, FORM.parse(text, 100, 100))
    s_sem = 0.15 * len(said.split())
    assert one.terms["s_loc"] == 0 and one.terms["s_sem"] == pytest.approx(s_sem)
    assert one.score == pytest.approx(0.8 * s_sem) and one.repaired_score is None
    assert (beside,) == judge(recipe(spr_repair=repair), [good]).answers
    record = judge_pictures(
        [PICTURE], [query()], [[{"id": "a", "text": text}, {"id": "b", "text": good}]], ready
    )
    pair = make_pair(query(), "Describe.", record[0]["candidates"], best_over_worst)
    assert text.startswith("Some") or (pair.chosen, pair.rejected) == (good, text)


@pytest.mark.parametrize("text", ["", "[0.0, 0.0, 0.2, 0.2]", "[0.0, 0.0, 0.2]"])
def test_what_says_nothing_is_not_rejected_either(text):
    assert judge(recipe(spr_reject_vague=True), [text]) == judge(recipe(), [text])
    assert judge(recipe(), [text]).answers[0].not_rejectable


def test_an_answer_that_loses_its_boxes_is_not_vague():
    text = "a dog [0.8, 0.8, 0.9, 0.9]"
    assert judge(recipe(spr_reject_vague=True), [text]) == judge(recipe(), [text])


def test_without_repair_the_repaired_text_is_the_text(models):
    text = "a dog [0.0, 0.0, 0.2, 0.18] and a cup [0.8, 0.8, 0.9, 0.9]"
    ready = find_recipe(config(spr_repair="none"), FORM).on("cpu")
    [one] = judge(ready, [text]).answers
    assert one.repaired == text and one.repaired_score == one.score and one.not_choosable is None


def test_the_similarity_gets_words_without_coordinates():
    similarity = WordCount()
    judge(recipe(similarity), ["a dog [0.0, 0.0, 0.2, 0.2] runs"])
    assert similarity.asked == [(query().region, "a dog runs")]


def test_an_answer_is_parsed_once(monkeypatch):
    """And what its repair made of it as often as the repair looks for what is left."""
    read, parse = [], FORM.parse
    form = llava("square")
    monkeypatch.setattr(
        type(form), "parse", lambda self, text, *size: read.append(text) or parse(text, *size)
    )
    texts = ["a dog [0.0, 0.0, 0.2, 0.18]", "a cup [0.4, 0.4, 0.6, 0.55]"]
    judge(recipe(), texts)
    assert sorted(read) == sorted([*texts, "a dog [0.0, 0.0, 0.2, 0.2]", "a cup [0.4, 0.4, 0.6, 0.6]"])


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
    alone = judge(recipe(), [good]).answers
    bad, beside = judge(recipe(), [text, good]).answers
    assert (bad.terms, bad.score, bad.reason) == ({}, None, reason)
    assert bad.not_choosable == bad.not_rejectable == reason
    assert (beside,) == alone
    assert judge(recipe(), [text]).answers == (bad,)


def test_detector_boxes_join_the_predictions_of_who_named_them_and_everybodys_truth():
    finder = Finder()
    one, two = judge(recipe(detector=finder), TEXTS).answers
    assert finder.asked == [["cat", "dog"]]
    assert one.terms["s_loc"] == pytest.approx(1 / 3) and two.terms["s_loc"] == pytest.approx(2 / 3)


def test_without_a_group_the_truth_is_the_annotations():
    """An answer's score then depends on nothing but itself, and nothing is kept between two calls."""
    finder = Finder()
    judging = recipe(detector=finder)
    alone = [judge(judging, [text], pooled=False).answers[0] for text in TEXTS]
    together = judge(judging, TEXTS, pooled=False)
    assert list(together.answers) == alone and len(together.truth) == 2
    assert finder.asked == [["dog"], ["cat", "dog"], ["cat", "dog"]]


def test_the_regions_of_a_picture_are_asked_together_and_scored_apart():
    """One call of each model a picture; a region's truth holds only what its own texts name."""
    finder, similarity = Finder(), WordCount()
    queries = [query(), query(region=(0, 0, 50, 50))]
    texts = [TEXTS[1:], TEXTS[:1] * 2]
    together = recipe(similarity, finder).judge([PICTURE], queries, texts)
    assert [len(one.truth) for one in together] == [3, 1]
    assert finder.asked == [["cat", "dog"]] and len(similarity.asked) == len(set(similarity.asked))
    assert together == [judge(recipe(detector=Finder()), said, asked) for asked, said in zip(queries, texts)]


NOWHERE = [
    (10, 10, 10, 30),
    (30, 30, 20, 20),
    (float("nan"), 0, 9, 9),
    (-1e9, 60, float("inf"), float("inf")),
    (200, 200, 300, 300),
    (-9, -9, 0.5, 50),
]


@pytest.mark.parametrize(
    "rows",
    [[], [(box, 0.9) for box in NOWHERE], [((70, 70, 90, 90), float("nan"))]],
    ids=["nothing", "no boxes", "no score"],
)
def test_a_detector_that_finds_nothing_usable_changes_nothing(rows):
    assert judge(recipe(detector=Finds(*rows)), TEXTS) == judge(recipe(), TEXTS)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_cosines_that_are_not_finite_are_no_score(broken):
    class Broken(WordCount):
        def score(self, picture, asked):
            return [(broken, 0.5) for _ in asked]

    judged = judge(recipe(Broken()), TEXTS)
    assert [(one.reason, one.score, one.terms) for one in judged.answers] == [("not_finite", None, {})] * len(
        TEXTS
    )


def test_a_detector_that_returns_5000_boxes():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 100, (5000, 2, 2)), axis=2)
    rows = [((x1, y1, x2, y2), 0.5) for (x1, x2), (y1, y2) in corners.tolist()]
    judged = judge(recipe(detector=Finds(*rows)), TEXTS)
    truth = np.array(judged.truth)
    assert truth[:2].tolist() == [[0, 0, 20, 20], [40, 40, 60, 60]] and len(truth) > 100
    overlaps = iou_matrix(truth[2:], truth[2:]) - np.eye(len(truth) - 2)
    assert overlaps.max() < 0.5 and all(0 < one.terms["s_loc"] <= 1 for one in judged.answers)


def test_without_the_local_half_the_semantic_score_is_the_crop_s():
    text = "a dog [0.0, 0.0, 0.2, 0.2] runs"
    [whole] = judge(recipe(), [text]).answers
    [crop] = judge(recipe(local=False), [text]).answers
    changed = {key for key in whole.terms if whole.terms[key] != crop.terms[key]}
    assert crop.terms["s_sem"] == crop.terms["s_crop"] and changed == {"s_sem"}


def test_what_is_measured_by_hand():
    """An answer a query: the true box of one of the two objects, with a second box, far from both, no box."""
    far = "a dog [0.7, 0.8, 0.8, 0.9]"
    values = recipe().measure([TEXTS[0], f"{TEXTS[0]} and {far}", far, "a dog"], [query()] * 4)
    assert values == pytest.approx({"parsable": 0.75, "boxes": 1.0, "s_loc": 0.25})
    assert SPR.BEST in values and SPR.WATCHED.keys() <= values.keys()


def test_a_worked_answer_is_worth_most():
    asked, ready = query(), recipe()
    whole, short = ready.worked(asked), ready.worked(asked, short=True)
    assert ready.measure([whole], [asked])["s_loc"] > 0.99 > ready.measure([short], [asked])["s_loc"] > 0.49


def test_without_a_box_format_nothing_is_asked():
    with pytest.raises(UserError, match="nobody here knows the run's box format"):
        SPR(SPRConfig(), None).question(query())


# --- from the flags


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
    return SPRConfig(spr=True, **{**PAPER, "spr_clip": "words", "spr_lambda": 0.7, **flags})


def test_a_recipe_that_is_loaded_stays_of_its_kind(models):
    """A plugin's, which changes one thing of ours."""

    class Mine(SPR):
        pass

    assert type(Mine(config(), FORM).on("cpu")) is Mine


def test_what_the_flags_name_is_loaded(models):
    ready = find_recipe(config(spr_detector="nothing"), FORM).on("cpu")
    assert isinstance(ready.scorer.similarity.given, WordCount) and isinstance(ready.detector.given, Finds)
    assert ready.scorer.lam == 0.7 and ready.scorer.local and ready.repair is refine
    assert not find_recipe(config(spr_no_local=True), FORM).on("cpu").scorer.local
    for flags in ({}, {"spr_detector": "nothing", "spr_no_detector": True}):
        assert find_recipe(config(**flags), FORM).on("cpu").detector is None


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("clip", None, ": this command names no vision tower"),
        ("clip", "x", "x: not"),
        ("detector", "dino", "dino: no"),
        ("scorer", "other", "other: no plugin has it"),
        ("repair", "other", "other: no plugin has it"),
    ],
)
def test_a_flag_that_nobody_serves_is_named(models, flag, value, words):
    with pytest.raises(UserError, match=f"--spr_{flag} ?{words}"):
        find_recipe(config(**{f"spr_{flag}": value}), FORM).on("cpu")


def test_a_recipe_that_nobody_has_is_named():
    with pytest.raises(UserError, match="--spr_recipe other: no plugin has it"):
        find_recipe(config(spr_recipe="other"), FORM)


def test_what_a_plugin_s_models_give_is_checked_at_every_call(models):
    """A shape that is right on the made-up picture and wrong on a later one does not pass for numbers."""
    ready = find_recipe(config(), FORM).on("cpu")
    ready.scorer.similarity.given.score = lambda picture, asked: [(float("nan"), 0.0) for _ in asked]
    with pytest.raises(UserError, match="plugin models: spr_similarity, WordCount.score gives as S_crop nan"):
        judge(ready, ["a dog [0.0, 0.0, 0.2, 0.2]"])


def test_judged_answers_are_plain_data():
    [one] = judge(recipe(), TEXTS[:1]).answers
    assert set(asdict(one)) == {
        *"text terms score reason repaired repaired_terms repaired_score not_choosable not_rejectable".split()
    }


def test_the_summary_tells_what_was_added_and_refuses_by_the_flags():
    terms = [{"added": 2.0, "missed": 1.0}, {"added": 0.0, "missed": 1.0}, {}]
    rows = [{"reason": "unparsable", "not_choosable": None, "repaired_terms": one} for one in terms]
    told = SPR(SPRConfig(spr_reject_vague=False), FORM).summary([{"candidates": rows}])
    assert told == ["2 missed objects added to repaired answers, 2 are missed still"]
    assert SPR(SPRConfig(spr_reject_vague=False, spr_add_missed=False), FORM).summary([]) == []
    with pytest.raises(UserError, match="^3 of 3 answers cannot be read"):
        SPR(SPRConfig(), FORM).summary([{"candidates": rows}])


def test_what_a_collapse_is_looked_for_in_counts_from_nothing_on():
    assert SPR.WATCHED == {"parsable": 0.0, "boxes": 0.0, "s_loc": 0.0} and SPR.BEST == "s_loc"


def test_the_order_is_that_of_the_model_s_own_answers():
    """Those to "reference" repeat the annotations, here right to left."""
    left, right = "a cat [0.1, 0.1, 0.2, 0.2]", "a dog [0.7, 0.1, 0.9, 0.2]"
    answers = [(query(), "plain", f"{left}, {right}"), (query(), "reference", f"{right}, {left}")] * 3
    informed = SPR(SPRConfig(), FORM).after(answers)
    assert (informed.order.name, informed.order.share, informed.order.pairs) == ("left to right", 1.0, 3)
    for flags in ({"spr_add_missed": False}, {"spr_repair": "none"}):
        asked = SPR(SPRConfig(**flags), FORM)
        assert asked.after(answers) is asked


def test_another_lambda_needs_both_terms():
    weighed = SPR(SPRConfig(), FORM).reweighed
    assert weighed({"s_sem": 1.0, "s_loc": 0.5}, 0.8) == pytest.approx(0.9)
    assert weighed({"s_sem": 1.0, "s_loc": 0.5, "kept": 1.0}, 0.8) == pytest.approx(0.9)
    assert weighed({"s_sem": 1.0}, 0.8) is weighed({"kept": 1.0}, 0.8) is None
