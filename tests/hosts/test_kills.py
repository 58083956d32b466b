"""SIGKILL in each stage: the same command finishes, nothing is lost or doubled, and the stage's entry stays
what it was.
"""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
import torch

from spr_plugin import runs
from spr_plugin.runs.log import Log

from .checks import assert_saved_equals_live, assert_saved_lora_equals_live, assert_whole, saved_weights
from .launch import ROOT, command, environment, kill, kill_when, run, spr_flags

pytestmark = pytest.mark.slow
# What a killed run says of itself: its other ranks may still be dying, and all may be done but the end of the
# process.
OPEN = ("empty", "stopped", "running", "finished")

LORA = ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8"]
EACH_STEP = ["--spr_save_steps", "1"]
FULL_DEVICE = Path(__file__).with_name("full_device.py")
STAGES = ("queries", "entry", "candidates", "scores", "pairs", "reference", "dpo", "policy")


def test_full_fine_tuning(world, tmp_path):
    """Three steps of SFT end in the middle of an epoch. The pairs are those of a run that nobody killed."""
    out, calm = tmp_path / "killed", tmp_path / "calm"
    killed_in(STAGES, command(world, out, *spr_flags(world), *EACH_STEP), out)
    assert_whole(out)
    assert_saved_equals_live(out)
    run(command(world, calm, *spr_flags(world), *EACH_STEP))
    for stage in ("queries", "candidates", "pairs"):
        assert Log(out / "spr" / stage).read() == Log(calm / "spr" / stage).read(), stage
    killed, expected = saved_weights(out), saved_weights(calm)
    assert all(torch.allclose(killed[name], expected[name], atol=1e-6, rtol=0) for name in expected)


def test_lora(world, tmp_path):
    out = tmp_path / "killed-lora"
    killed_in(STAGES, command(world, out, *spr_flags(world), *EACH_STEP, *LORA), out)
    assert_whole(out)
    assert_saved_lora_equals_live(out)


def test_two_rounds(world, tmp_path):
    """Killed while the improved model answers and while it is improved again."""
    out, calm = tmp_path / "killed", tmp_path / "calm"
    flags = [*spr_flags(world), *EACH_STEP, "--spr_rounds", "2", "--spr_only"]
    killed_in(("round-2/candidates", "round-2/dpo"), command(world, out, *flags), out)
    run(command(world, calm, *flags))
    for part in ("spr", "spr/round-2"):
        assert_whole(out, part)
        for stage in ("queries", "candidates", "pairs"):
            assert Log(out / part / stage).read() == Log(calm / part / stage).read(), (part, stage)
    assert_saved_equals_live(out)
    killed, expected = saved_weights(out), saved_weights(calm)
    assert all(torch.allclose(killed[name], expected[name], atol=1e-6, rtol=0) for name in expected)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_zero3_on_two_ranks(world, tmp_path):
    out = tmp_path / "killed-zero3"
    killed_in(STAGES, command(world, out, *spr_flags(world), *EACH_STEP, ranks=2, zero=3), out)
    assert_whole(out)
    assert_saved_equals_live(out)


def test_zero3_where_no_device_has_room_for_the_whole_model(world, tmp_path, calm):
    """Two ranks answer in step, layer by layer, and say what one says that holds the model. Once more when
    all is done: nothing is trained then, and the host saves the whole model all the same.
    """
    out = tmp_path / "killed-zero3"
    arguments = command(
        world, out, *spr_flags(world), *EACH_STEP, "--spr_only", "--spr_plugin", FULL_DEVICE, ranks=2, zero=3
    )
    killed_in(("candidates", "dpo"), arguments, out)
    assert (
        "a device has 0.0 GiB free; the ranks answer in step, layer by layer"
        in out.with_suffix(".log").read_text()
    )
    assert_whole(out)
    # Last bits are others in a process of DeepSpeed's: CLIP's, and those of an answer's logits, of which now
    # and then two are that close.
    assert_same_records(out, calm, ("queries",))
    said, calmly = (answers(folder) for folder in (out, calm))
    assert said.keys() == calmly.keys() and sum(said[id] != calmly[id] for id in said) <= 2
    assert_saved_equals_live(out)
    run(arguments)
    assert_saved_equals_live(out)


def killed_in(stages, arguments: list[str], out: Path) -> None:
    """Kill the command once in each stage, then let it finish."""
    entry, log = None, out.with_suffix(".log")
    for stage in stages:
        sign = out / "spr" / stage
        before = _size(sign)

        def reached(sign=sign, before=before):
            return (
                any(sign.glob("checkpoint-*/complete.json")) if sign.name == "dpo" else _size(sign) > before
            )

        assert kill_when(arguments, reached, log), (
            f"the run ended before its stage {stage} could be killed: {log.read_text()[-3000:]}"
        )
        assert runs.open(out).state in OPEN
        index = out / "spr" / "entry" / "index.json"
        if index.exists():
            assert entry in (None, index.read_bytes()), "the weights at the stage's entry changed"
            entry = index.read_bytes()
    run(arguments)
    assert index.read_bytes() == entry


def _size(path: Path) -> int:
    try:
        # Which is there before its stage.
        files = (file for file in path.rglob("*") if file.name != "manifest.json")
        return sum(file.stat().st_size for file in files if file.is_file())
    except FileNotFoundError:  # renamed between the two calls
        return 0


KILLS = int(os.environ.get("SPR_KILLS", "4"))  # over both numbers of ranks; `make test-kill` takes 40
SEED = int(os.environ.get("SPR_TEST_SEED", "0"))


@pytest.fixture(scope="module")
def calm(world, tmp_path_factory):
    """A run of the stages that nobody killed."""
    out = tmp_path_factory.mktemp("calm") / "llava"
    run(command(world, out, *spr_flags(world), "--spr_only"))
    return out


@pytest.mark.parametrize("ranks", [1, 2])
def test_random_instants(world, tmp_path, calm, ranks):
    """Killed at random instants from the lock on, restarted, killed again …: the pairs are those of the calm
    run, on one rank and on two.
    """
    rng = random.Random(SEED + ranks)
    length = (calm / "spr" / "report.html").stat().st_mtime - (calm / "spr" / "manifest.json").stat().st_mtime
    print(f"seed {SEED + ranks}, {length:.0f} s in the stages of a calm run")
    left, round = KILLS // 2, 0
    while left:
        out, round = tmp_path / f"killed-{round}", round + 1
        arguments = command(world, out, *spr_flags(world), "--spr_only", ranks=ranks)
        while left and killed_after(arguments, out / "spr" / "lock", rng.uniform(0, length)):
            left -= 1
            assert runs.open(out).state in OPEN
        run(arguments)
        assert runs.open(out).state == "finished"
        assert_whole(out)
        assert_saved_equals_live(out)
        assert_same_records(out, calm)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_what_is_left_is_dealt_anew_to_other_ranks(world, tmp_path):
    """1 → 2 → 4 → 1: each time killed when every rank has answered at least one batch; the last one finishes
    alone.
    """
    out, calm = tmp_path / "dealt", tmp_path / "calm"
    flags = [*spr_flags(world), "--spr_only", "--spr_sample_batch", "2"]
    log = Log(out / "spr" / "candidates")
    answered = []
    for ranks in (1, 2, 4):
        before = _lines(log, ranks)
        reached = lambda ranks=ranks, before=before: all(
            now > was for now, was in zip(_lines(log, ranks), before)
        )
        assert kill_when(command(world, out, *flags, ranks=ranks), reached, tmp_path / "log"), (
            tmp_path / "log"
        ).read_text()[-3000:]
        answered.append(dict(log.read()))
    assert len(answered[0]) < len(answered[1]) < len(answered[2]) < 12 * 3 * 2
    run(command(world, out, *flags))
    assert_whole(out)
    run(command(world, calm, *flags))
    assert_same_records(out, calm)
    again = log.read()
    assert all({id: again[id] for id in held} == held for held in answered)


def _lines(log: Log, ranks: int) -> list[int]:
    """How many lines each of these ranks has written."""
    files = [log.directory / f"rank-{rank:05d}.jsonl" for rank in range(ranks)]
    return [file.read_bytes().count(b"\n") if file.exists() else 0 for file in files]


def answers(out: Path) -> dict[str, str]:
    """Candidate → what the model said."""
    return {id: record["raw"] for id, record in Log(out / "spr" / "candidates").read().items()}


def assert_same_records(out: Path, calm: Path, stages=("queries", "candidates", "pairs")) -> None:
    """The records are those of the calm run to the last byte, in canonical order."""
    for stage in stages:
        assert read_log(out, stage) == read_log(calm, stage), stage


def killed_after(arguments: list[str], sign: Path, seconds: float) -> bool:
    """Start, and kill so many seconds after the run has taken its lock; False if it ended before."""
    before = sign.stat().st_mtime_ns if sign.exists() else 0
    process = subprocess.Popen(
        arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    due = None
    while process.poll() is None:
        if due is None and sign.exists() and sign.stat().st_mtime_ns != before:
            due = time.monotonic() + seconds
        if due is not None and time.monotonic() >= due:
            kill(process)
            return True
        time.sleep(0.02)
    return False


def read_log(out: Path, stage: str) -> list[bytes]:
    """The lines of all ranks. A line begins with its record's id, so that sorted they stand in the canonical
    order.
    """
    return sorted(
        line
        for path in (out / "spr" / stage).glob("rank-*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
    )
