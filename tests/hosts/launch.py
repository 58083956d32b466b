"""Start the real LLaVA training script as a user does."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny_world"


def launcher(ranks: int, deepspeed: bool, script: Path | None = None) -> list[str]:
    """The words before a training script's flags: python, torchrun, or DeepSpeed's own launcher; the script
    is llava-torch's unless named.
    """
    if deepspeed:
        script = script or Path(importlib.util.find_spec("llava").origin).parent / "train" / "train.py"
        return [
            str(Path(sys.executable).with_name("deepspeed")),
            "--num_gpus",
            str(ranks),
            "--master_port",
            str(free_port()),
            str(script),
        ]
    torchrun = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    )
    return [sys.executable, *torchrun, *([str(script)] if script else ["-m", "llava.train.train"])]


def zero_flags(zero: int | None) -> list[str]:
    """The flags that ask for tests/deepspeed/zero*.json; none without ``zero``."""
    return ["--deepspeed", str(ROOT / "tests" / "deepspeed" / f"zero{zero}.json")] if zero else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def command(world: Path, out: Path, *flags, ranks: int = 1, zero: int | None = None) -> list[str]:
    """LLaVA's training command on the tiny world, three steps of SFT, with ``flags`` behind.

    ``zero`` 2 or 3 takes the ``deepspeed`` launcher and tests/deepspeed/zero*.json; else ``ranks`` above 1
    take torchrun.
    """
    settings = f"""
        --model_name_or_path {TINY}/llava --version v1
        --data_path {world}/sft.json --image_folder {world}/images
        --vision_tower {TINY}/llava/vision_tower --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2
        --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad
        --group_by_modality_length True --output_dir {out} --max_steps 3 --per_device_train_batch_size 2
        --evaluation_strategy no --save_strategy no --learning_rate 1e-5 --logging_steps 1 --model_max_length 1024
        --logging_dir {out}/curves --overwrite_output_dir True --lazy_preprocess True --report_to none
        --bits 16 --bf16 False --tf32 False --use_cpu True
    """.split()  # noqa: E501
    return [*launcher(ranks, deepspeed=bool(zero)), *settings, *zero_flags(zero), *map(str, flags)]


def spr_flags(world: Path) -> list[str]:
    """Our flags; the pictures by a relative path, as people write them. A model of few steps names so much
    wrongly that by the default few answers would be kept.
    """
    return f"""--spr --spr_annotations {world}/spr.json --spr_image_folder {os.path.relpath(world, ROOT)}/images --spr_clip {TINY}/clip
        --spr_regions 12 --spr_max_new_tokens 120 --spr_sample_batch 6 --spr_batch_size 2
        --spr_min_kept 0.3""".split()  # noqa: E501


def environment() -> dict:
    settings = {
        "HF_HUB_OFFLINE": "1",
        "WANDB_DISABLED": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    return {**os.environ, **settings}


def run(arguments: list[str], expect: int = 0, timeout: int = 400, cwd: Path = ROOT) -> str:
    """Run to the end; the joined output. A wrong exit code, or none in time, fails with the output's tail."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            arguments, env=environment(), stdout=output, stderr=subprocess.STDOUT, cwd=cwd
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            code = f"none after {timeout} s"
        output.seek(0)
        printed = output.read()
    as_wanted = code == 0 if expect == 0 else code in (1, 2)
    assert as_wanted, f"exit code {code}\n{printed[-5000:]}"
    return printed


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for the launcher and all that it started; torchrun's workers are in sessions of their own."""
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def kill_when(arguments: list[str], reached, log: Path, timeout: int = 600) -> bool:
    """Start, what it prints behind ``log``, and kill as soon as ``reached()``; False if it ended before."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            arguments, env=environment(), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        late = time.monotonic() > deadline
        if late or reached():
            kill(process)
            return not late
        time.sleep(0.02)
    return False
