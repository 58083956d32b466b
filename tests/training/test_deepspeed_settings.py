"""``--deepspeed`` files, asked of the installed DeepSpeed: what its engine takes passes, what it would refuse
or not read is one line.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from spr_plugin.errors import UserError
from spr_plugin.training.deepspeed_settings import BATCH, check_deepspeed, stage_settings

pytest.importorskip("deepspeed", reason="the legacy environment has no DeepSpeed")

FILES = sorted((Path(__file__).parents[1] / "deepspeed").glob("*.json"))
PLAIN = SimpleNamespace(bits=16)
OFFLOAD = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1},  # noqa: E501
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},  # noqa: E501
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}},  # noqa: E501
    "zero_optimization": {
        "stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": True}, "offload_param": {"device": "cpu", "pin_memory": True},  # noqa: E501
        "overlap_comm": True, "contiguous_gradients": True, "sub_group_size": 1e9, "reduce_bucket_size": "auto", "stage3_max_live_parameters": 1e9,  # noqa: E501
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto",  # noqa: E501
    "steps_per_print": 1e5, "wall_clock_breakdown": False, "activation_checkpointing": {"partition_activations": True},  # noqa: E501
    "flops_profiler": {"enabled": False}, "tensorboard": {"enabled": False}, "zero_allow_untested_optimizer": True, "aio": {"block_size": 1048576},  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_that_run_pass(path):
    check_deepspeed(str(path), PLAIN)


def test_what_labs_write_passes():
    check_deepspeed(OFFLOAD, PLAIN)
    check_deepspeed(
        {
            **OFFLOAD,
            "train_batch_size": 128,
            "train_micro_batch_size_per_gpu": 16,
            "_comment": "for eight cards",
        },
        PLAIN,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gradient_cliping": 1.0}, "unknown key gradient_cliping; did you mean gradient_clipping?"),
        ({"my_lab": 1}, "unknown key my_lab"),
        (
            {"zero_optimization": {"stage": 2, "overlap_comms": False}},
            "zero_optimization.overlap_comms: Extra inputs",
        ),
        (
            {"zero_optimization": {"stage": 2, "_comment": "its sections take no notes"}},
            "zero_optimization._comment: Extra inputs",
        ),
        ({"zero_optimization": {"stage": 7}}, "zero_optimization.stage: "),
        ({"bf16": {"enable": True}}, "bf16.enable: Extra inputs"),
        ({"checkpoint": {"tag_validation": "Perhaps"}}, "tag_validation"),
    ],
)
def test_a_key_or_value_that_deepspeed_does_not_take_is_named_with_the_file(tmp_path, change, words):
    (tmp_path / "zero.json").write_text(json.dumps({**OFFLOAD, **change}))
    with pytest.raises(UserError) as caught:
        check_deepspeed(str(tmp_path / "zero.json"), PLAIN)
    assert (
        str(caught.value).startswith(f"--deepspeed {tmp_path}/zero.json: ")
        and words in str(caught.value)
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_file_that_is_none(tmp_path, text):
    if text:
        (tmp_path / "zero.json").write_text(text)
    with pytest.raises(UserError, match="zero.json"):
        check_deepspeed(str(tmp_path / "zero.json"), PLAIN)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"bits": 4}, "--bits 4"),
        ({"bits": 8}, "--bits 8"),
        ({"load_in_4bit": True}, "--load_in_4bit"),
        ({"load_in_8bit": True}, "--load_in_8bit"),
    ],
)
def test_quantized_weights_go_with_zero_2_alone(flags, words):
    with pytest.raises(UserError, match=f"{words} with ZeRO-3"):
        check_deepspeed(OFFLOAD, SimpleNamespace(**flags))
    check_deepspeed({**OFFLOAD, "zero_optimization": {"stage": 2}}, SimpleNamespace(**flags))


def test_the_stage_keeps_the_engine_s_settings_and_none_of_the_host_s_optimizer():
    stage = stage_settings(
        {**OFFLOAD, "train_batch_size": 128, "gradient_accumulation_steps": 4, "gradient_clipping": 0.5}
    )
    assert {name: stage[name] for name in stage if stage[name] == "auto"}.keys() == {
        *BATCH,
        "gradient_clipping",
    }
    assert (
        not {"optimizer", "scheduler"} & stage.keys()
        and stage["zero_optimization"] == OFFLOAD["zero_optimization"]
    )
    check_deepspeed(stage, PLAIN)
