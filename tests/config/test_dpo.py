"""What of the DPO stage's flags hangs on several, or on the host."""

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.config.dpo import SFT_WEIGHT, DPOFlags


@pytest.mark.parametrize(
    ("given", "losses"),
    [
        ({}, (["sigmoid", "sft"], [1.0, SFT_WEIGHT])),
        ({"spr_loss_type": ["sft"]}, (["sft"], [1.0])),
        ({"spr_loss_type": ["ipo", "hinge"]}, (["ipo", "hinge"], [1.0, 1.0])),
        ({"spr_loss_weights": [0.5, 2.0]}, (["sigmoid", "sft"], [0.5, 2.0])),
    ],
)
def test_losses_weigh_1_but_for_the_chosen_answer_beside_others(given, losses):
    assert DPOFlags(**given).losses() == losses


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ({}, DPOFlags.spr_learning_rate),
        ({"spr_rate_ratio": 0.5}, 1e-3),
        ({"spr_rate_ratio": 0.5, "spr_learning_rate": 3e-4}, 3e-4),
        ({"spr_learning_rate": 3e-4}, 3e-4),
        ({"spr_preset": "author"}, 2e-3),
        ({"spr_preset": "author", "spr_learning_rate": DPOFlags.spr_learning_rate}, 5e-5),
    ],
)
def test_a_ratio_counts_unless_a_rate_is_given(given, rate):
    assert SPRConfig(spr=True, **given).peak_rate(2e-3) == rate


def test_weights_of_tokens_are_those_that_are_given():
    assert DPOFlags().token_weights() == {}
    flags = DPOFlags(spr_token_weight=["words=0.5", "changed=2"])
    assert flags.token_weights() == {"words": 0.5, "changed": 2.0}
