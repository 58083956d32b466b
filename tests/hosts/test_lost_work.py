"""No training is lost: what fails after the host's training is not paid with it, and none is skipped in
silence."""

import os
import sys

import pytest

from spr_plugin.files import read_json
from spr_plugin.runs.log import Log
from spr_plugin.tools.status import read_status
from spr_plugin.training.weights import tensor_hash

from . import make_vlm
from .checks import assert_saved_equals_live, assert_whole, saved_weights
from .launch import ROOT, TINY, command, run, spr_flags

pytestmark = pytest.mark.slow
FAILED = "spr: error: the SPR stage failed"


def with_flags(arguments: list[str], **flags) -> list[str]:
    """The command with these flags in place of what it says of them."""
    for name, value in flags.items():
        flag = f"--{name}"
        index = arguments.index(flag) if flag in arguments else len(arguments)
        arguments = [*arguments[:index], flag, str(value), *arguments[index + 2 :]]
    return arguments


def assert_saved_is_entry(out, saved: dict) -> None:
    """What the host saved is what it has trained, in its own structure."""
    entry = read_json(out / "spr" / "entry" / "index.json")
    known = {name: tensor_hash(tensor) for name, tensor in saved.items()}
    trained = {name for name in entry if name in known}
    assert len(trained) > 30 and {name: known[name] for name in trained} == {
        name: entry[name] for name in trained
    }
    assert not any("lora" in name or "base_layer" in name for name in known)
    assert "spr_box" not in read_json(out / "config.json")


def test_a_dpo_that_goes_wrong_is_not_paid_with_the_host_s_training(world, tmp_path):
    """Weights have moved by then, and an adapter of ours is in the model."""
    out = tmp_path / "llava"
    arguments = command(world, out, *spr_flags(world), "--spr_learning_rate", "1e9")
    printed = run(arguments, expect=2)
    *_, last = printed.strip().splitlines()
    assert last.startswith(f"{FAILED} (dpo): the DPO loss is not finite") and "Traceback" not in printed
    failed = read_json(out / "spr" / "failed.json")
    assert failed["stage"] == "dpo" and failed["error"].startswith("the DPO loss is not finite at step")
    assert_saved_is_entry(out, saved_weights(out))
    candidates = dict(Log(out / "spr" / "candidates").read())
    printed = run(with_flags(arguments, spr_learning_rate=5e-5))
    assert "--spr_learning_rate was 1000000000.0, is 5e-05: in" in printed
    assert "'train_loss'" not in printed.split("DPO trains")[0] and "read from spr/entry" in printed
    assert (
        dict(Log(out / "spr" / "candidates").read()) == candidates
        and not (out / "spr" / "failed.json").exists()
    )
    assert_whole(out)
    assert_saved_equals_live(out)


def test_no_pair_is_left_on_two_ranks(world, tmp_path):
    """Every rank knows, and every rank goes on with the host."""
    out = tmp_path / "llava"
    flags = with_flags(spr_flags(world), spr_regions=4, spr_max_new_tokens=40, spr_min_gap=9)
    printed = run(command(world, out, *flags, ranks=2), expect=2)
    assert f"{FAILED} (pairs): no preference pair is left of 4 queries" in printed
    assert_saved_is_entry(out, saved_weights(out))
    # The corrected flag pairs anew, and asks and scores nothing again.
    stages = ("queries", "candidates", "scores")
    before = {stage: dict(Log(out / "spr" / stage).read()) for stage in stages}
    mended = run(command(world, out, *with_flags(flags, spr_min_gap=0), ranks=2))
    assert "--spr_min_gap was 9.0, is 0.0: in" in mended and "pairs (4 records" in mended
    assert {stage: dict(Log(out / "spr" / stage).read()) for stage in stages} == before
    assert "spr: sampling" not in mended and (out / "spr" / "policy" / "index.json").exists()
    again = run(command(world, out, *flags, "--num_train_epochs", "1", "--max_steps", "5", ranks=2), expect=2)
    assert "holds the weights of another training (max_steps 3 became 5)" in again and "'loss'" not in again


ONE_RANK = """
from spr_plugin.recipes.spr import scoring
from spr_plugin.training import ranks
from spr_plugin.hookspecs import hookimpl

@hookimpl
def spr_scorer(config, device):
    if ranks.rank() == 1 and device != "cpu":  # at the start it is loaded on the CPU by name
        raise RuntimeError("rank 1 has a bad day")
    return scoring.spr_scorer(config=config, device=device)
"""


def test_one_rank_s_own_failure_ends_the_command_and_leaves_the_entry(world, tmp_path):
    (tmp_path / "plugin.py").write_text(ONE_RANK)
    out = tmp_path / "llava"
    flags = with_flags(
        spr_flags(world), spr_regions=4, spr_max_new_tokens=40, spr_plugin=tmp_path / "plugin.py"
    )
    printed = run(command(world, out, *flags, ranks=2), expect=2)
    assert "rank 1 has a bad day" in printed
    assert (out / "spr" / "entry" / "index.json").exists() and not list(out.glob("*.safetensors"))
    assert read_json(out / "spr" / "failed.json")["rank"] in (0, 1)


def test_spr_only_has_no_training_to_save(world, tmp_path):
    out = tmp_path / "llava"
    flags = with_flags(spr_flags(world), spr_regions=2, spr_max_new_tokens=20, spr_min_gap=9)
    printed = run(command(world, out, *flags, "--spr_only"), expect=2)
    *_, last = printed.strip().splitlines()
    assert last.startswith("spr: error: no preference pair is left") and not list(out.glob("*.safetensors"))
    assert read_json(out / "spr" / "failed.json")["stage"] == "pairs"
    assert read_status(out)["next"].startswith("end again, since no preference pair is left")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    run([sys.executable, make_vlm.__file__, "llava", str(folder)])
    return folder


def test_a_process_with_three_trainings(world, checkpoint, tmp_path, monkeypatch):
    """SPR follows the first that trains the language model, and each trains all its steps, when the command
    is started again too; by two parsers, of which one sees our flags in its remaining strings alone."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "examples"))
    out = tmp_path / "out"
    settings = f"""--model {checkpoint} --data {world}/sft.json --images {world}/images --output_dir {out} --max_steps 2
        --per_device_train_batch_size 1 --learning_rate 1e-5 --report_to none --save_strategy no --use_cpu
        True --remove_unused_columns False
        --spr --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_clip {TINY}/clip
        --spr_regions 8 --spr_epochs 0.5
        --spr_max_new_tokens 80 --spr_sample_batch 6 --spr_batch_size 2 --spr_probe_regions 0""".split()  # noqa: E501
    arguments = [sys.executable, str(ROOT / "tests" / "hosts" / "scripts" / "phases.py"), *settings]
    printed = run(arguments)
    assert read_json(out / "seen.json") == [
        [2, ["projector"]],
        [2, ["projector", "rest"]],
        [2, ["projector", "rest"]],
    ]
    assert printed.count("the SPR stage follows the first one that does") == 1
    assert printed.count("this one is the host's own, and SPR does not follow it again") == 1
    assert read_json(out / "spr" / "exit.json") and "DPO on" in printed
    os.unlink(out / "model.safetensors")
    printed = run(arguments)
    assert read_json(out / "seen.json") == [
        [2, ["projector"]],
        [0, ["projector", "rest"]],
        [2, ["projector", "rest"]],
    ]
    assert "its weights were read from spr/entry" in printed and (out / "model.safetensors").exists()
