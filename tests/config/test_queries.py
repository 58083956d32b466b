"""Recipes and their shares."""

import pytest

from spr_plugin.config.queries import QueriesFlags


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        (["spr"], {"spr": 1.0}),
        (["spr", "actial"], {"spr": 1.0, "actial": 1.0}),
        (["spr=0.75", "actial=0.25"], {"spr": 0.75, "actial": 0.25}),
    ],
)
def test_recipes_share_alike_or_as_they_are_given(given, shares):
    assert QueriesFlags(spr_recipe=given).recipes() == shares
