"""Flags beside each other: what makes no sense together."""

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError


def test_one_candidate_a_region_cannot_make_a_pair():
    alone = dict(spr=True, spr_samples=1, spr_prompts=["plain"])
    for pairing in (["best_worst"], ["repaired=0.5", "best_worst=0.5"]):
        with pytest.raises(UserError, match="--spr_samples 1"):
            SPRConfig(**alone, spr_pairing=pairing)
    assert SPRConfig(**alone, spr_pairing=["repaired"]).spr_samples == 1  # over itself as it was written


def test_a_server_cannot_answer_for_the_improved_model():
    flags = dict(spr=True, spr_sampler="openai", spr_sampler_url="http://localhost")
    with pytest.raises(UserError, match="--spr_rounds 2 with --spr_sampler openai"):
        SPRConfig(**flags, spr_rounds=2)
    SPRConfig(**flags)


def test_the_likeliest_answer_needs_no_plain_prompt():
    assert SPRConfig(spr=True, spr_prompts=["crop", "reference"]).spr_greedy
    assert SPRConfig(spr=True).spr_greedy
