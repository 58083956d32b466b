"""A live LLaVA for benchmarks and tests: LLaVA's own script runs up to ``trainer.train()`` in this process,
and its host is taken there.
"""

import os
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
TINY = ROOT / "examples" / "tiny_world"


class _Ready(BaseException):
    """Carries the trainer out of the script."""


def live_llava(llm, tower, data, images, out, *flags):
    """The :class:`spr_plugin.training.host.Host` of LLaVA's training script on the given weights and data;
    nothing is trained.
    """
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_DISABLED="true")
    from spr_plugin.hooks import shims
    from spr_plugin.plugins import ask

    shims.install()
    import transformers
    from llava.train import train as script

    from spr_plugin.config import SPRConfig

    text = f"""llava --model_name_or_path {llm} --version v1 --data_path {data} --image_folder {images} --vision_tower {tower}
        --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False
        --image_aspect_ratio pad --output_dir {out} --max_steps 1 --model_max_length 2048 --lazy_preprocess True --report_to none
        --bits 16 --bf16 False --tf32 False --use_cpu True"""  # noqa: E501

    def ready(trainer, *args, **kwargs):
        raise _Ready(trainer)

    with (
        mock.patch.object(sys, "argv", [*text.split(), *flags]),
        mock.patch.object(transformers.Trainer, "train", ready),
    ):
        try:
            script.train()
        except _Ready as arrived:
            (trainer,) = arrived.args
    return ask("spr_host", trainer=trainer, namespace=vars(script), config=SPRConfig(spr=True))


def tiny_world(folder: Path, **sizes) -> Path:
    """``folder`` with so many scenes of each kind of the embedded world (sft, spr, val, test)."""
    import subprocess

    words = [word for split, count in sizes.items() for word in (f"--{split}", str(count))]
    subprocess.run(
        [sys.executable, TINY / "scenes.py", folder, *words], check=True, stdout=subprocess.DEVNULL
    )
    return folder


def tiny_llava(world: Path, out: Path, *flags):
    """The embedded LLaVA, live."""
    return live_llava(
        TINY / "llava", TINY / "llava" / "vision_tower", world / "sft.json", world / "images", out, *flags
    )
