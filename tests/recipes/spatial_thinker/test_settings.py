"""The section of SpatialThinker."""

import pytest

from spr_plugin.errors import UserError
from spr_plugin.recipes.spatial_thinker.settings import TASKS, ThinkerSettings


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({}, 0.97, 1),
        ({"scene": "text_mean"}, 0.97, 1),
        ({"count": "larger"}, 0.97, 1),
        ({"relation": 1.0}, 0.8, 0.81),
    ],
)
def test_options_reach_the_reward(made, settings, least, most):
    """An answer whose relation has another word."""
    recipe, source = made({"tasks": ["relation"], **settings})
    query, *_ = recipe.queries(source)
    text = recipe.worked(query).replace('"predicate": "left of"', '"predicate": "eats"')
    assert least <= recipe.measure([text], [query])["reward"] <= most


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": ["relations"]}, "spatial_thinker: tasks relations: choose from relation, size"),
        ({"tasks": []}, "spatial_thinker: tasks"),
        ({"per_picture": 0}, "spatial_thinker: per_picture 0: must lie between"),
        ({"scene": "mean"}, "spatial_thinker: scene mean: choose from code_sum, text_mean"),
        ({"weight": 1}, "spatial_thinker: weight is no setting"),
    ],
)
def test_wrong_settings_are_one_line(made, settings, words):
    with pytest.raises(UserError, match=words) as refused:
        made(settings)
    assert "\n" not in str(refused.value)


def test_without_settings_it_is_the_authors_code_on_the_paper_s_questions(made):
    recipe, source = made()
    assert {query.task for query in recipe.queries(source)} <= set(TASKS)
    settings = ThinkerSettings()
    assert (settings.scene, settings.count, settings.relation, settings.names) == (
        *("code_sum", "true", 0.0, "exact"),
    )
