"""The section of Actial, and how often each motion comes."""

import pytest

from spr_plugin.config import SPRConfig, shaping
from spr_plugin.errors import UserError
from spr_plugin.recipes.actial.motion import MOTIONS
from spr_plugin.recipes.actial.settings import weights
from spr_plugin.recipes.find import find_recipe


def test_its_settings_shape_the_queries(config):
    before, after = (shaping(config(section))["queries"] for section in ({}, {"least_apart": 30}))
    assert before != after
    for section, words in (
        ({"apart": 1}, "apart is no setting; it takes format_half, least_apart"),
        ({"tasks": ["roll"]}, "tasks roll: choose from move, object_move, turn"),
        ({"motions": ["walk=1"]}, "motions walk=1: must be NAME=WEIGHT, of orbit, turn, shift, still"),
        (
            {"motions": [f"{one}=0" for one in ("orbit", "turn", "shift", "still")]},
            "motions orbit=0 .*: leave one that weighs more",
        ),
        ({"least_apart": 5}, "least_apart 5.0: must lie between 10 and 180"),
        ({"least_apart": 60, "most_apart": 40}, "least_apart 60 is more than most_apart 40"),
        ({"per_scene": 0}, "per_scene 0: must lie between 1 and 1000"),
        ({"format_half": "text"}, "format_half text: choose from paper, right"),
    ):
        with pytest.raises(UserError, match=f"actial: {words}"):
            find_recipe(config(section), None)
    assert find_recipe(SPRConfig(spr=True, spr_recipe="actial"), None).again == 2


def test_motions_that_are_not_named_come_as_1(settings):
    assert weights(settings()) == {"orbit": 5, "turn": 3, "shift": 3, "still": 1}
    assert weights(settings(motions=["orbit=2", "still"])) == {"orbit": 2, "turn": 1, "shift": 1, "still": 1}
    assert weights(settings(motions=[])) == dict.fromkeys(MOTIONS, 1)


def test_by_their_shares_each_side_comes_as_often_as_none(settings):
    """Half of what moves moves to one side, and so of what turns: a third of all each, and a third rests."""
    share = weights(settings())
    for of in (0, 1):  # moves, turns
        active = sum(share[name] for name, kinds in MOTIONS.items() if kinds[of])
        assert active / sum(share.values()) == 2 / 3
