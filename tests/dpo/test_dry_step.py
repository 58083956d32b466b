"""One step on the longest pair, before the first: what it says and what it leaves as it was."""

import re

import pytest
import torch

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo.pairs import measure_lengths
from spr_plugin.dpo.phase import try_step
from spr_plugin.dpo.trainer import PreferenceTrainer
from spr_plugin.errors import UserError
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log

pytestmark = pytest.mark.slow

SETTINGS = dict(spr_batch_size=2, spr_gradient_accumulation=2, spr_epochs=3.0)


@pytest.fixture
def tried(pairs, tmp_path):
    """``tried(host, config)``: a dry step for eight pairs; its cost."""

    def go(host, config):
        recipe = find_recipe(config, host.box_format)
        return try_step(host, recipe, pairs(8), config.only(DPOFlags), Folder(tmp_path / "spr"))

    return go


def longest_of(host, config, given, folder) -> tuple[str, int]:
    """The id of the pair with most tokens, and those."""
    measured = measure_lengths(host, given, config.only(DPOFlags), Log(folder))
    return max(((one.pair.id, one.tokens) for one in measured), key=lambda item: item[1])


def test_the_longest_pair_is_taken_and_a_forecast_is_said(live_llava, pairs, tried, tmp_path, capfd):
    host, config = live_llava(**SETTINGS)
    longest, tokens = longest_of(host, config, pairs(8), tmp_path / "lengths")
    cost = tried(host, config)
    assert cost.seconds > 0 and cost.peak > 0
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "dry step on" in line]
    # Three epochs of eight pairs, four a step.
    assert f"dry step on the longest pair ({longest}, {tokens} tokens): {cost}; forecast: 8 pairs," in line
    hours = re.search(r" 6 steps, at most ([\d.]+) h; by the model's shapes ", line)[1]
    assert float(hours) == pytest.approx(cost.seconds * 2 * 6 / 3600, abs=0.006)


def test_no_weight_moves_and_no_gradient_stays(live_llava, tried):
    host, config = live_llava(**SETTINGS, spr_tune="full")
    model = host.trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tried(host, config)
    after = dict(model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None or not p.grad.any() for p in after.values())


def test_a_model_that_cannot_be_read_loses_its_forecast_of_memory_alone(live_llava, tried, capfd):
    host, config = live_llava(**SETTINGS)
    vars(host.trainer.model.config)["intermediate_size"] = None  # its layers are built
    assert tried(host, config).seconds > 0
    assert "; no forecast of memory (TypeError: " in capfd.readouterr().err


def test_a_pair_that_does_not_fit_is_named_with_what_to_do(live_llava, pairs, tried, tmp_path, monkeypatch):
    host, config = live_llava(**SETTINGS)
    longest, tokens = longest_of(host, config, pairs(8), tmp_path / "lengths")

    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", full)
    words = rf"longest pair \({longest}, {tokens} tokens\) does not fit .*--spr_batch_size 2: lower it"
    with pytest.raises(UserError, match=words) as caught:
        tried(host, config)
    assert "\n" not in str(caught.value)
