"""How the rows of a stage are laid out, and what its answers are by either layout."""

import dataclasses

import pytest
import torch

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo import stage as module
from spr_plugin.dpo.features import FeatureCache
from spr_plugin.dpo.pairs import batch_of, item_of, measure_lengths, pair_rows
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.stage import Stage, choose_layout, inputs_of, precision
from spr_plugin.runs.layout import Folder

pytestmark = pytest.mark.slow


@pytest.fixture
def staged(live_llava, pairs, tmp_path):
    """``staged(settings of live.build…)`` → a stage, and its pairs with their lengths."""

    def go(**settings):
        host, config = live_llava(**settings)
        flags = config.only(DPOFlags)
        folder = Folder(tmp_path / "spr")
        stage = Stage(host, flags, folder, "entry", FeatureCache(0), None, Division(2, 1, 1))
        return stage, measure_lengths(host, pairs(4), flags, stage.log("lengths"))

    return go


def test_rows_are_joined_where_the_first_pair_proves_it(staged, capfd):
    stage, measured = staged()
    choose_layout(stage, measured)
    assert stage.joined
    said = capfd.readouterr().err
    assert "DPO rows: chosen and rejected share their prompt and picture (sdpa; the first pair's" in said
    assert "allowed 1e-05)" in said


def test_a_proof_that_fails_leaves_two_rows_a_pair(staged, monkeypatch, capfd):
    stage, measured = staged()
    monkeypatch.setitem(module.TOLERANCE, torch.float32, -1.0)  # which no difference keeps to
    choose_layout(stage, measured)
    assert not stage.joined
    assert "DPO rows: two a pair: the first pair's log-probs differ by " in capfd.readouterr().err


def test_an_attention_that_takes_no_mask_leaves_two_rows_a_pair(staged, capfd):
    stage, measured = staged()
    backbone, _ = stage.host.language_model()
    backbone.config._attn_implementation = "flash_attention_2"
    choose_layout(stage, measured)
    assert not stage.joined
    said = capfd.readouterr().err
    assert "DPO rows: two a pair: " in said and "differ" not in said


def test_the_stage_s_layout_is_taken_unless_another_is_asked_for(staged):
    stage, measured = staged()
    host = stage.host
    inputs = batch_of(host, [one.pair for one in measured])
    with torch.no_grad():
        two, one = (stage.answers(host.trainer.model, inputs, joined) for joined in (False, True))
        assert torch.equal(stage.answers(host.trainer.model, inputs).sums, two.sums)
        stage.joined = True
        assert torch.equal(stage.answers(host.trainer.model, inputs).sums, one.sums)
    assert torch.allclose(one.sums, two.sums, atol=1e-4) and two.sums.abs().min() > 1
    assert two.weights is None


def test_weights_of_tokens_are_the_flag_s_at_their_places(staged):
    stage, measured = staged(spr_token_weight=["words=0.5"])
    pair = measured[0].pair
    inputs = inputs_of(stage, [item_of(pair.id, pair_rows(stage.host, pair))])
    answers = stage.answers(stage.host.trainer.model, inputs)
    weights = answers.weights[answers.scored]
    assert set(weights.tolist()) == {0.5, 1.0} and not answers.weights[~answers.scored].any()
    assert torch.equal(weights == 1, inputs["coordinates"].bool())


@pytest.mark.parametrize(
    ("args", "expected"), [({}, torch.float32), ({"bf16": True}, torch.bfloat16)], ids=["as it is", "bf16"]
)
def test_precision_is_the_arguments_or_else_the_weights(staged, args, expected):
    stage, _ = staged(args=args)
    assert precision(stage) == expected
    stage.host.trainer.args = dataclasses.replace(stage.host.trainer.args, bf16=False)
    stage.host.trainer.model.double()
    assert precision(stage) == torch.float64
