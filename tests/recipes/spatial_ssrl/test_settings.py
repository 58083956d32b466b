"""The section of Spatial-SSRL."""

import pytest

from spr_plugin.config import SPRConfig, shaping
from spr_plugin.errors import UserError
from spr_plugin.recipes.find import find_recipe


def test_its_settings_shape_the_queries(config):
    before, after = (shaping(config(**section))["queries"] for section in ({}, {"white": 0.25}))
    assert before != after
    for section, words in (
        ({"whit": 1}, "whit is no setting; it takes depth, disparity"),
        ({"white": 2}, "white 2.0: must lie between 0 and 1"),
        ({"grids": ["5x5"]}, r"grids 5x5: choose from 2x2"),
        ({"facings": "paper"}, "facings paper: choose from text, code"),
        ({"resample": -1}, "resample -1: must be 0 or more"),
    ):
        with pytest.raises(UserError, match=f"spatial_ssrl: {words}"):
            find_recipe(config(**section), None)
    assert find_recipe(SPRConfig(spr=True, spr_recipe="spatial_ssrl"), None).again == 2
