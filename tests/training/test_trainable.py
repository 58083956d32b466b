"""What of a model trains: an adapter of ours, the host's own, or all weights."""

import dataclasses

import pytest
import torch

from spr_plugin import dpo
from spr_plugin.dpo import choose_trainable, merge_adapter
from spr_plugin.errors import UserError
from spr_plugin.training.trainable import describe


def test_nothing_to_train(live_llava):
    host, config = live_llava(spr_tune="full")
    dpo.check_trainable(host, config)
    host.trainer.model.requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        choose_trainable(host, config)


def test_adapters_of_the_host_that_are_nowhere_in_the_language_model(live_llava):
    """Known before anything is trained, and said then; the projector trains if it is asked for."""
    host, config = live_llava(lora=True)
    dpo.check_trainable(host, config)
    for name, parameter in host.trainer.model.named_parameters():
        parameter.requires_grad_("mm_projector" in name)
    with pytest.raises(
        UserError, match="nothing to train: .* in the language model.*--spr_tune_projector"
    ) as caught:
        dpo.check_trainable(host, config)
    assert "\n" not in str(caught.value)
    dpo.check_trainable(host, dataclasses.replace(config, spr_tune_projector=True))


def test_llava_1_5_s_vision_tower_cannot_be_trained(live_llava):
    """Known before anything is trained, and said then."""
    host, config = live_llava(spr_tune_vision_tower=True)
    with pytest.raises(
        UserError, match="--spr_tune_vision_tower: LLaVA-1.5's vision tower .*gradients"
    ) as caught:
        dpo.check_trainable(host, config)
    assert "\n" not in str(caught.value)


def test_an_adapter_with_nothing_to_be_added_to(live_llava):
    """Known before anything is trained, and said then."""
    host, config = live_llava()
    dpo.check_trainable(host, config)
    host.llava.get_model().layers = torch.nn.ModuleList()
    with pytest.raises(UserError, match="--spr_tune lora: the language model has no linear layer"):
        dpo.check_trainable(host, config)


def test_an_adapter_of_ours_trains_in_fp32_beside_weights_in_bf16(live_llava):
    """In bf16 a step of the usual size rounds to nothing for most of it; the host's weights stay as they
    are, also once it is merged.
    """
    host, config = live_llava(args={"bf16": True})
    model = host.trainer.model
    own = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert torch.bfloat16 in own.values()
    trains = [model.get_parameter(name) for name in choose_trainable(host, config)]
    assert trains and {parameter.dtype for parameter in trains} == {torch.float32}
    optimizer = torch.optim.AdamW(trains, lr=config.spr_learning_rate, weight_decay=0.0)
    before = [parameter.detach().clone() for parameter in trains]
    for parameter in trains:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert all((was != now).float().mean() > 0.99 for was, now in zip(before, trains))
    merge_adapter(model)
    assert {name: parameter.dtype for name, parameter in model.named_parameters()} == own


def test_a_group_that_no_flag_asked_for_is_refused(live_llava):
    host, config = live_llava(spr_tune="full")
    choose_trainable(host, config)
    host.llava.get_model().mm_projector[0].weight.requires_grad_(True)
    with pytest.raises(UserError, match="projector, which no flag asks for"):
        describe(host, config)


def test_rank_and_scale_are_those_of_the_flags(live_llava):
    """--spr_lora_r and --spr_lora_alpha: matrices of rank 3, whose product counts 12 / 3 times."""
    host, config = live_llava(spr_lora_r=3, spr_lora_alpha=12)
    model = host.trainer.model
    before = {name: value.clone() for name, value in model.named_parameters()}
    names = choose_trainable(host, config)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert trained.keys() == set(names) and all(3 in value.shape for value in trained.values())
    first = next(name for name in trained if "lora_A" in name)
    a, b = trained[first], trained[first.replace("lora_A", "lora_B")]
    with torch.no_grad():
        b.normal_()
        expected = before[first.partition(".lora_A")[0] + ".weight"] + 4 * b @ a
    merge_adapter(model)
    merged = dict(model.named_parameters())
    assert merged.keys() == before.keys()
    assert torch.allclose(merged[first.partition(".lora_A")[0] + ".weight"], expected, atol=1e-5)
