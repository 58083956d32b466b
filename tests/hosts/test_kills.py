"""SIGKILL in each stage: the same command finishes, nothing is lost or doubled, and the stage's entry stays what it was."""

from pathlib import Path

import pytest

from spr_plugin.store import Log

from .checks import assert_saved_equals_live, assert_saved_lora_equals_live, assert_whole
from .launch import command, kill_when, run, spr_flags

pytestmark = pytest.mark.slow

LORA = ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8"]
STAGES = ("regions", "entry", "candidates", "scores", "pairs", "reference", "dpo", "policy")


def test_full_fine_tuning(world, tmp_path):
    """Three steps of SFT end in the middle of an epoch. The pairs are those of a run that nobody killed."""
    out, calm = tmp_path / "killed", tmp_path / "calm"
    killed_in(STAGES, command(world, out, *spr_flags(world)), out)
    assert_whole(out)
    assert_saved_equals_live(out)
    run(command(world, calm, *spr_flags(world)))
    for stage in ("regions", "candidates", "pairs"):
        assert Log(out / "spr" / stage).read() == Log(calm / "spr" / stage).read(), stage


def test_lora(world, tmp_path):
    out = tmp_path / "killed-lora"
    killed_in(("entry", "candidates", "dpo"), command(world, out, *spr_flags(world), *LORA), out)
    assert_whole(out)
    assert_saved_lora_equals_live(out)


def test_zero3_on_two_ranks(world, tmp_path):
    out = tmp_path / "killed-zero3"
    killed_in(("candidates", "dpo"), command(world, out, *spr_flags(world), ranks=2, zero=3), out)
    assert_whole(out)
    assert_saved_equals_live(out)


def killed_in(stages, arguments: list[str], out: Path) -> None:
    """Kill the command once in each stage, then let it finish."""
    entry = None
    for stage in stages:
        sign = out / "spr" / stage
        before = _size(sign)
        reached = (lambda: _pairs_have_references(out)) if stage == "dpo" else (lambda: _size(sign) > before)
        assert kill_when(arguments, reached), f"the run ended before its stage {stage} could be killed"
        index = out / "spr" / "entry" / "index.json"
        if index.exists():
            assert entry in (None, index.read_bytes()), "the weights at the stage's entry changed"
            entry = index.read_bytes()
    run(arguments)
    assert index.read_bytes() == entry


def _size(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except FileNotFoundError:  # renamed between the two calls
        return 0


def _pairs_have_references(out: Path) -> bool:
    """Reference log-probs are complete, so that the run is in its DPO steps."""
    pairs = [record for record in Log(out / "spr" / "pairs").read().values() if "skip" not in record]
    return len(Log(out / "spr" / "reference").read()) >= len(pairs) > 0
