"""Start the real LLaVA training script as a user does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples" / "tiny_world"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def command(world: Path, out: Path, *flags, ranks: int = 1) -> list[str]:
    """``python -m llava.train.train …`` (under torchrun for several ranks) on the tiny world, three steps of SFT, with ``flags`` behind."""
    launcher = [sys.executable] + ([*TORCHRUN, str(ranks)] if ranks > 1 else [])
    settings = f"""
        -m llava.train.train --model_name_or_path {TINY}/llava --version v1
        --data_path {world}/sft.json --image_folder {world}/images
        --vision_tower {TINY}/llava/vision_tower --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2
        --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad
        --group_by_modality_length True --output_dir {out} --max_steps 3 --per_device_train_batch_size 2
        --evaluation_strategy no --save_strategy no --learning_rate 1e-5 --logging_steps 1 --model_max_length 1024
        --lazy_preprocess True --report_to none --bits 16 --bf16 False --tf32 False --use_cpu True
    """.split()
    return [*launcher, *settings, *map(str, flags)]


def spr_flags(world: Path) -> list[str]:
    return f"""--spr --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_clip {TINY}/clip
        --spr_regions 12 --spr_max_new_tokens 120 --spr_sample_batch 6 --spr_batch_size 2""".split()


def environment() -> dict:
    settings = {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return {**os.environ, **settings}


def run(arguments: list[str], expect: int = 0, timeout: int = 400) -> str:
    """Run to the end; the joined output. A wrong exit code fails with the output's tail."""
    done = subprocess.run(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, cwd=ROOT)
    assert (done.returncode == 0) == (expect == 0), f"exit code {done.returncode}\n{done.stdout[-5000:]}"
    return done.stdout


def kill_when(arguments: list[str], reached, timeout: int = 300) -> bool:
    """Start, and SIGKILL the whole process group as soon as ``reached()``; False if it ended before."""
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if reached():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.02)
    process.kill()
    process.wait()
    return False
