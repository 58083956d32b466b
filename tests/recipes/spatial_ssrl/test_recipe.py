"""Spatial-SSRL as a recipe: what its judge says of answers, and that it keeps the contract of any recipe."""

import numpy as np
import pytest

from spr_plugin.contracts.recipe import CheckedRecipe
from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.recipes.base import Judged, Source, unjudged
from spr_plugin.recipes.spatial_ssrl.recipe import SpatialSSRL

RIGHT, PLAIN, WRONG, BARE = (
    r"<think>so</think> \boxed{%s}",
    r"\boxed{%s}",
    r"<think>so</think> \boxed{x}",
    "x",
)


@pytest.fixture
def recipe(config, tmp_path, scene):
    """One with its contract checked at every call, and the queries that it makes of two pictures."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "depth").mkdir()
    for seed in (3, 5):
        of = scene(seed=seed)
        of.picture.save(tmp_path / "pictures" / f"{seed}.png")
        np.save(tmp_path / "depth" / f"{seed}.npy", of.depth + 1)
    flags = config(depth=str(tmp_path / "depth"), distance="code")
    checked = CheckedRecipe("ours", "spr_recipe", SpatialSSRL(flags), {"config": flags})
    return checked, checked.queries(Source(image_folder=str(tmp_path / "pictures")))


def answers_of(query, *forms):
    return [form % query.truth["answer"] if "%" in form else form for form in forms]


def test_right_answers_are_chosen_and_wrong_ones_rejected(recipe):
    recipe, queries = recipe
    for query in queries:
        texts = answers_of(query, RIGHT, PLAIN, WRONG, BARE)
        (judged,) = recipe.judge([], [query], [texts])
        assert [one.score for one in judged.answers] == pytest.approx([1.0, 0.9, 0.1, 0.0])
        assert [dict(one.terms) for one in judged.answers][1] == {"exact": 1.0, "format": 0.0}
        assert [one.not_choosable for one in judged.answers] == [None, None, "wrong", "wrong"]
        assert [one.not_rejectable for one in judged.answers] == ["right", "right", None, None]
        assert all(one.repaired == one.text and one.repaired_score == one.score for one in judged.answers)
        pair = best_over_worst(query, dict(zip("abcd", judged.answers)))
        assert pair == ("a", "d") and recipe.enough(query, texts)


@pytest.mark.parametrize("forms, why", [((RIGHT, PLAIN), "all_right"), ((WRONG, BARE), "all_wrong")])
def test_where_all_answers_agree_is_said_why(recipe, forms, why):
    """And the query is asked again, as often as `resample` says."""
    recipe, (query, *_) = recipe
    texts = answers_of(query, *forms)
    (judged,) = recipe.judge([], [query], [texts])
    rows = [{"id": id, **vars(one)} for id, one in zip("ab", judged.answers)]
    assert make_pair(query, query.text, rows, best_over_worst) == why
    assert not recipe.enough(query, texts) and recipe.again == 2
    assert recipe.enough(query, [*texts, *answers_of(query, RIGHT, WRONG)])


def test_an_empty_answer_has_no_score_and_agrees_with_none(recipe):
    recipe, (query, *_) = recipe
    (judged,) = recipe.judge([], [query], [[" ", *answers_of(query, RIGHT)]])
    assert [one.reason for one in judged.answers] == ["empty", None]
    assert judged.answers[1].not_rejectable == "all_right"


def test_partial_credit_changes_scores_and_not_who_is_right(config, recipe):
    _, queries = recipe
    query = next(query for query in queries if query.task == "patch_order")
    places = query.truth["answer"].split("-")
    nearly = "-".join([places[1], places[0], *places[2:]])
    for partial, score in ((False, 0.0), (True, 0.9 * (len(places) - 2) / len(places))):
        (judged,) = SpatialSSRL(config(partial=partial)).judge([], [query], [[rf"\boxed{{{nearly}}}"]])
        assert judged.answers[0].score == pytest.approx(score)
        assert judged.answers[0].not_choosable == "all_wrong"


def test_measure_and_worked_answers(recipe):
    recipe, queries = recipe
    assert {query.task for query in queries} >= {"patch_order", "cropped_patch", "depth_order", "position"}
    for short in (False, True):
        worked = [recipe.worked(query, short) for query in queries]
        assert recipe.measure(worked, queries) == {"exact": 1.0, "format": 1.0, "reward": 1.0}
    half = [recipe.worked(query) if number % 2 else "?" for number, query in enumerate(queries)]
    assert recipe.measure(half, queries) == pytest.approx({"exact": 0.5, "format": 0.5, "reward": 0.5})
    assert len(recipe.worked(queries[0], True)) < len(recipe.worked(queries[0]))


def test_what_is_drawn(recipe):
    """What was hidden or flipped, and the patch that an answer names."""
    recipe, queries = recipe
    for query in queries:
        texts = answers_of(query, RIGHT, r"\boxed{0-1}", "nothing")
        drawn = recipe.draw(query, Judged(None, tuple(map(unjudged, texts))))
        kinds = [[mark.kind for mark in marks] for marks, _ in drawn]
        wanted = {"cropped_patch": [["truth"]] * 3, "flipped_patch": [["truth", "written"]] * 2 + [["truth"]]}
        assert kinds == wanted.get(query.task, [[]] * 3)
