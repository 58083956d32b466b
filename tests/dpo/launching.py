"""Start tests/dpo/zero_run.py under torchrun and read what it wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("zero_run.py")


def stage(folder: Path, out: Path, *flags, ranks=1, dies=False) -> dict[str, dict]:
    """mode → what the run recorded. A rank that hangs dumps its stack (the script's watchdog) and fails the
    run.
    """
    out.mkdir(exist_ok=True)
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    )
    environment = dict(
        os.environ, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES=""
    )
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), str(out), *map(str, flags)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert (done.returncode != 0) == dies, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


def assert_same_losses(runs: dict[str, dict], expected: dict[str, dict], engine: str) -> None:
    """The first five steps to 1e-5 relative, by the engine that was asked for."""
    assert runs.keys() == expected.keys()
    for mode, run in runs.items():
        assert run["engine"] == engine, mode
        pairs = list(zip(run["losses"], expected[mode]["losses"]))[:5]
        assert len(pairs) == 5 and all(abs(a - b) <= 1e-5 * abs(b) for a, b in pairs), (mode, pairs)


def assert_like_in_half_precision(runs: dict[str, dict], expected: dict[str, dict]) -> None:
    """No more than bf16 apart from fp32 in the first five steps, under DeepSpeed; policy and reference are
    compared in fp32.
    """
    for mode, run in runs.items():
        assert run["engine"] == "DeepSpeedEngine" and len(run["losses"]) >= 5
        assert abs(run["steps"][0]["rewards/margins"]) < 1e-5, mode
        assert run["losses"][:5] == pytest.approx(expected[mode]["losses"][:5], abs=0.1), mode
