"""Which recipe a run follows, and how many queries each of several makes."""

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.recipes.find import dealt, find_recipe
from spr_plugin.recipes.several import Several


@pytest.mark.parametrize(
    ("regions", "shares", "portions"),
    [
        (10, {"a": 1.0}, {"a": 10}),
        (10, {"a": 1.0, "b": 1.0}, {"a": 5, "b": 5}),
        (10, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 3, "b": 4, "c": 3}),
        (7, {"a": 0.75, "b": 0.25}, {"a": 5, "b": 2}),
        (100, {"a": 3.0, "b": 1.0}, {"a": 75, "b": 25}),
    ],
)
def test_all_queries_are_dealt_by_the_shares(regions, shares, portions):
    assert dealt(regions, shares) == portions


def test_a_recipe_that_would_make_none_is_named():
    with pytest.raises(UserError, match="^--spr_recipe b would make none of --spr_regions 10: leave it out"):
        dealt(10, {"a": 99.0, "b": 0.1})


@pytest.mark.parametrize("name", ["spr", "spatial_ssrl", "spatial_thinker", "actial"])
def test_each_of_ours_is_found_by_its_name(name):
    config = SPRConfig(spr=True, spr_recipe=[name], spr_annotations="a.json")
    assert find_recipe(config, box_format("llava")).name == name


def test_several_are_one_and_each_knows_its_own_number():
    config = SPRConfig(spr=True, spr_recipe=["spr=0.7", "actial=0.3"], spr_regions=10)
    found = find_recipe(config, box_format("llava"))
    assert isinstance(found, Several)
    assert [(one.name, one.config.spr_regions) for one in found.recipes.values()] == [
        ("spr", 7),
        ("actial", 3),
    ]


def test_one_that_nobody_has_is_named_with_ours():
    config = SPRConfig(spr=True, spr_recipe=["spr", "other"])
    with pytest.raises(
        UserError, match="^--spr_recipe other: no plugin has it; ours are spr, spatial_ssrl, "
    ):
        find_recipe(config, box_format("llava"))
