"""Actial as a recipe: what its judge says of answers, and that it keeps the contract of any recipe."""

import pytest

from spr_plugin.contracts.recipe import CheckedRecipe
from spr_plugin.pairing import best_over_worst
from spr_plugin.recipes.actial.recipe import Actial
from spr_plugin.recipes.base import Judged, Source, unjudged

FORMS = ("<think>so</think><answer>{}</answer>", "<answer>{}</answer>", "{}")
OTHER = {"left": "right", "right": "none", "none": "left"}


@pytest.fixture
def recipe(config, posed_world):
    """One with its contract checked at every call, and its queries."""
    flags = config(spr_regions=30)
    checked = CheckedRecipe("ours", "spr_recipe", Actial(flags), {"config": flags})
    return checked, checked.queries(Source(image_folder=str(posed_world(scenes=12, views=24))))


def answers_of(query):
    """Right and wrong ones in each form."""
    right = query.truth["answer"]
    return [form.format(said) for said in (right, OTHER[right]) for form in FORMS]


def test_right_answers_are_chosen_and_wrong_ones_rejected(recipe, config):
    recipe, queries = recipe
    gated = Actial(config({"format_half": "right"}))
    for query in queries:
        texts = answers_of(query)
        (judged,) = recipe.judge([], [query], [texts])
        assert [one.score for one in judged.answers] == [1.0, 0.5, 0.0, 0.5, 0.0, 0.0]
        assert dict(judged.answers[3].terms) == {"exact": 0.0, "format": 1.0}
        # Without a tag there is no answer that could be right.
        assert [one.not_choosable for one in judged.answers] == [None, None, *["wrong"] * 4]
        assert [one.not_rejectable for one in judged.answers] == ["right", "right", *[None] * 4]
        pair = best_over_worst(query, dict(zip("abcdef", judged.answers)))
        assert pair[0] == "a" and pair[1] in "cef" and recipe.enough(query, texts)
        (judged,) = gated.judge([], [query], [texts])
        assert [one.score for one in judged.answers] == [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_measure_and_worked_answers(recipe):
    recipe, queries = recipe
    for short in (False, True):
        worked = [recipe.worked(query, short) for query in queries]
        assert recipe.measure(worked, queries) == {"exact": 1.0, "format": 1.0, "reward": 1.0}
    wrong = [FORMS[0].format(OTHER[query.truth["answer"]]) for query in queries]
    assert recipe.measure(wrong, queries) == {"exact": 0.0, "format": 1.0, "reward": 0.5}
    assert recipe.BEST == "exact" and recipe.WATCHED == {"format": 0.2} and recipe.thinks
    assert len(recipe.worked(queries[0], True)) < len(recipe.worked(queries[0]))


def test_what_the_scene_is_about_is_drawn_in_both_pictures(recipe):
    recipe, queries = recipe
    drawn = {query.truth["motion"]: recipe.draw(query, Judged(None, (unjudged("?"),))) for query in queries}
    for ((marks, same),) in drawn.values():
        assert marks == same and {mark.kind for mark in marks} == {"region"}
    ((marks, _),) = drawn["orbit"]
    assert [mark.picture for mark in marks] == [0, 1]
    assert marks[0].xyxy == pytest.approx((43.2, 43.2, 52.8, 52.8), abs=0.2)


def test_facets(recipe):
    recipe, queries = recipe
    for query in queries:
        assert recipe.facets(query) == {"motion": [query.truth["motion"]], "answer": [query.truth["answer"]]}
