"""Whatever starts a command, ``--spr`` reaches its training script; without the flag nothing of ours is
there. The stub stage stands for ours.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from safetensors.torch import load_file

from .launch import ROOT, environment, free_port
from .tree import HERE

pytestmark = pytest.mark.slow
SCRIPT = HERE / "scripts" / "smallest.py"
BIN = Path(sys.executable).parent
FLAGS = """--max_steps 2 --per_device_train_batch_size 2 --learning_rate 0.1 --report_to none --save_strategy no
    --use_cpu True --seed 1""".split()  # noqa: E501
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "here",
}

LAUNCHERS = {
    "script": (1, lambda: [sys.executable, SCRIPT]),
    "module": (1, lambda: [sys.executable, "-m", "smallest"]),
    "torchrun": (2, lambda: [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT]),
    # One process: on a CPU accelerate starts more only through MPI.
    "accelerate": (1, lambda: [BIN / "accelerate", "launch", "--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no",  # noqa: E501
                               "--dynamo_backend", "no", SCRIPT]),
    "deepspeed": (2, lambda: [BIN / "deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), SCRIPT]),  # noqa: E501
}  # fmt: skip


def start(command, folder, **variables) -> subprocess.CompletedProcess:
    settings = {
        **environment(),
        "PYTHONPATH": f"{ROOT / 'tests' / 'stub_stage'}:{SCRIPT.parent}",
        "SPR_STUB_RECORD": str(folder / "record.jsonl"),
        **variables,
    }
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=settings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def records(folder) -> list[dict]:
    file = folder / "record.jsonl"
    return (
        sorted(
            (json.loads(line) for line in file.read_text().splitlines()), key=lambda record: record["rank"]
        )
        if file.exists()
        else []
    )


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_stage_is_reached_on_every_rank(tmp_path, name):
    ranks, words = LAUNCHERS[name]
    start([*words(), *FLAGS, "--output_dir", tmp_path / "out", "--spr", "--spr_beta", "0.3"], tmp_path)
    assert [(r["rank"], r["steps"], r["beta"], r["namespace"]) for r in records(tmp_path)] == [
        (rank, 2, 0.3, True) for rank in range(ranks)
    ]
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_shell_script_under_slurm_s_variables(tmp_path):
    """As clusters start it: srun sets the variables, the script ends in the training command and hands its
    arguments on.
    """
    script = tmp_path / "finetune.sh"
    script.write_text(
        f"#!/bin/bash\nset -e\nexport SOMETHING=1\n{sys.executable} {SCRIPT} {' '.join(FLAGS)} \\\n   "
        ' --output_dir out "$@"\n'
    )
    start(["bash", script, "--spr"], tmp_path, **SLURM)
    (record,) = records(tmp_path)
    assert record["steps"] == 2 and (tmp_path / "out" / "model.safetensors").exists()


def test_without_the_flag_the_weights_are_those_of_a_python_without_us(tmp_path):
    """Bit for bit: the same command, started by a Python that reads our boot file and by one that reads
    none.
    """
    packages = sysconfig.get_paths()["purelib"]
    without = (
        f"import sys; sys.path.append({packages!r}); sys.argv = sys.argv[1:]; import runpy;"
        " runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for name, command in {"with": [sys.executable], "without": [sys.executable, "-S", "-c", without]}.items():
        start([*command, SCRIPT, *FLAGS, "--output_dir", tmp_path / name], tmp_path)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert (
        ours
        and all(ours[name].numpy().tobytes() == theirs[name].numpy().tobytes() for name in theirs)
        and ours.keys() == theirs.keys()
    )
    assert records(tmp_path) == [] and os.listdir(tmp_path / "with") == os.listdir(tmp_path / "without")
