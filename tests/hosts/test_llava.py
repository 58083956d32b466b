"""``--spr`` on LLaVA's own training script, through every launcher. Real LLaVA, real engines, tiny weights."""

import sys

import pytest
import torch

from spr_plugin.store import read_json

from .checks import assert_saved_equals_live, assert_saved_lora_equals_live, assert_whole, saved_weights
from .launch import TINY, command, run, spr_flags

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """A finished single-process run of a host with full fine-tuning, and what it printed."""
    out = tmp_path_factory.mktemp("full") / "llava-spr"
    arguments = command(world, out, *spr_flags(world), "--spr_save_base")
    return out, arguments, run(arguments)


@pytest.mark.legacy
def test_full_fine_tuning_single_process(finished):
    out, _, printed = finished
    assert_whole(out)
    assert_saved_equals_live(out)
    assert "DPO on" in printed
    config = read_json(out / "config.json")
    assert config["spr_box"] == {"family": "llava", "space": "padded_square", "aspect": "pad"}
    base, improved = saved_weights(out / "spr" / "base"), saved_weights(out)
    assert base.keys() == improved.keys()
    moved = {name for name in base if not torch.equal(base[name], improved[name])}
    assert moved and all("self_attn" in name or "mlp" in name for name in moved), sorted(moved)[:5]
    assert not any("mm_projector" in name or "vision_tower" in name for name in moved)
    assert len(moved) == sum(name.endswith("_proj.weight") for name in base if "layers" in name and "vision_tower" not in name)


@pytest.mark.legacy
def test_the_same_command_again_redoes_nothing(finished):
    out, arguments, _ = finished
    logs = {path: path.read_bytes() for path in (out / "spr").rglob("*.jsonl")}
    weights = saved_weights(out)
    printed = run(arguments)
    assert "was" not in printed or "read from spr/policy" in printed
    assert {path: path.read_bytes() for path in (out / "spr").rglob("*.jsonl")} == logs
    again = saved_weights(out)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_another_configuration_on_the_same_folder_is_refused(finished):
    _, arguments, _ = finished
    printed = run([*arguments, "--spr_lambda", "0.5"], expect=2)
    assert "spr: error:" in printed and "--spr_lambda was 0.8, is 0.5" in printed and "--spr_overwrite" in printed
    assert "Traceback" not in printed.split("spr: error:")[1]


@pytest.mark.legacy
def test_the_host_s_own_loader_reads_the_result(finished):
    """LLaVA's builder loads base and result, and they answer."""
    out, _, _ = finished
    script = f"""
import spr_plugin.hooks.shims as shims; shims.install()
from llava.model.builder import load_pretrained_model
for path in ({str(out)!r}, {str(out / "spr" / "base")!r}):
    tokenizer, model, processor, _ = load_pretrained_model(path, None, "llava", device_map="cpu", device="cpu")
    assert model.config.spr_box["family"] == "llava", path
print("loaded")
"""
    assert "loaded" in run([sys.executable, "-c", script])


@pytest.mark.legacy
def test_lora_host(world, tmp_path):
    """A host with LoRA keeps its adapter; projector and adapter are saved as they live."""
    out = tmp_path / "llava-lora"
    run(command(world, out, *spr_flags(world), "--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8"))
    assert_whole(out)
    assert_saved_lora_equals_live(out)
    live = read_json(out / "spr" / "exit.json")["weights"]
    entry = read_json(out / "spr" / "entry" / "index.json")
    changed = {name for name in live if entry[name] != live[name]}
    assert changed and all("lora_" in name for name in changed)


@pytest.mark.legacy
def test_two_ranks(world, tmp_path):
    out = tmp_path / "llava-ddp"
    run(command(world, out, *spr_flags(world), ranks=2))
    assert_whole(out)
    assert_saved_equals_live(out)
    assert read_json(out / "spr" / "exit.json")["engine"] == "DistributedDataParallel"


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_zero_on_two_ranks(world, tmp_path, stage):
    out = tmp_path / f"llava-zero{stage}"
    run(command(world, out, *spr_flags(world), ranks=2, zero=stage))
    assert_whole(out)
    assert_saved_equals_live(out)
    assert read_json(out / "spr" / "exit.json")["engine"] == "DeepSpeedEngine"


def test_spr_only_starts_from_the_loaded_model(world, tmp_path):
    out = tmp_path / "llava-only"
    printed = run(command(world, out, *spr_flags(world), "--spr_only", "--spr_save_base"))
    assert_whole(out)
    assert "train_runtime" in printed
    given, base = saved_weights(TINY / "llava"), saved_weights(out / "spr" / "base")
    assert all(torch.equal(given[name].float(), base[name].float()) for name in given if name.startswith("model.layers"))
