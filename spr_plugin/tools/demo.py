"""The ten-minute tour: an unmodified LLaVA command with ``--spr`` on the embedded tiny world, measured by
lmms-eval before and after.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_json
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.progress import say
from spr_plugin.runs.layout import Folder

PACKAGE = Path(__file__).parents[1]
# Of an installed package, else of a checkout.
WORLD = next(filter(Path.is_dir, (PACKAGE / "tiny_world", PACKAGE.parent / "examples" / "tiny_world")))
PARTS = ("torch", "transformers", "peft", "trl", "llava", "lmms_eval", "datasets", "sentencepiece")
SIZES = {"sft": 64, "spr": 384, "val": 16, "test": 290}
UNTUNED = f"""--spr_regions {SIZES["spr"]} --spr_max_new_tokens 160 --spr_sample_batch 16 --spr_tune full
    --spr_batch_size 8"""
# Of DEMO's rates (examples/tiny_world/reproduce/plan.py) the highest at which no figure's point falls on
# validation scenes.
FLAGS = f"{UNTUNED} --spr_learning_rate 1e-4"


def run(out: str = "demo", limit: int | None = None) -> dict:
    """Train, run SPR, evaluate base and result; every finished part is kept, so a second call prints at once.

    Args:
        out: folder of data, checkpoints and results.
        limit: expressions evaluated of each split; None for all.

    Returns:
        What `spr_plugin.report.comparison.compare` says of base and result.

    Raises:
        UserError: a package that it runs is not installed, or a part failed.
    """
    if missing := [name for name in PARTS if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"spr demo runs {', '.join(missing)}, not installed here: pip install"
            " 'spr-plugin[dpo,eval,report]' && pip install --no-deps lmms-eval llava-torch"
        )
    refuse_unwritable({"--out": out}, folders=True)
    data, model = trained(out)
    for checkpoint, folder in ((Folder.under(model).base, "eval-base"), (model, "eval-spr")):
        _evaluate(checkpoint, data, Path(out) / folder, limit)
    from spr_plugin.eval_tasks.compare import ALL
    from spr_plugin.report.comparison import compare

    comparison = compare(f"{out}/eval-base", f"{out}/eval-spr", out)
    rows = comparison["tasks"][ALL]["rows"]
    print(f"{table(rows)}\n{verdict(rows)}\n")
    print(f"report: {model / 'spr' / 'report.html'}\ncomparison: {out}/compare.html")
    print(f"next, its pairs with boxes on pictures: spr inspect {model}")
    return comparison


def trained(out: str) -> tuple[Path, Path]:
    """Folders of the data and of the model that SPR trained on it."""
    data, model = Path(out) / "data", Path(out) / "llava-spr"
    if not (data / "spr.json").exists():
        _run("data", [sys.executable, str(WORLD / "scenes.py"), str(data), *_sizes()], out)
    if not (model / "config.json").exists():
        _run("SFT and SPR", train_command(data, model, FLAGS, placed(Path(out) / "llava")), out)
    return data, model


def placed(folder: Path) -> Path:
    """A copy of the embedded LLaVA whose config names its vision tower by where it lies: the embedded one's
    path holds from the root of a checkout alone. A relative `folder` stays so, since LLaVA's script takes a
    model with "mpt" in its path ("prompts") for an MPT.
    """
    shutil.copytree(WORLD / "llava", folder, dirs_exist_ok=True)
    config = {
        **read_json(folder / "config.json"),
        "mm_vision_tower": str((folder / "vision_tower").resolve()),
    }
    write_json(folder / "config.json", config)
    return folder


def train_command(data: Path, model: Path, flags: str = FLAGS, llava: Path = WORLD / "llava") -> list[str]:
    """LLaVA's own training command on the tiny world, from the checkpoint `llava`; all that is ours begins
    with ``--spr`` and, but for the paths, is `flags`.
    """
    return f"""
        {sys.executable} -m llava.train.train --model_name_or_path {llava} --version v1
        --data_path {data}/sft.json --image_folder {data}/images
        --vision_tower {(llava / "vision_tower").resolve()}
        --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2
        --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad
        --group_by_modality_length True --output_dir {model} --max_steps 4 --per_device_train_batch_size 8
        --evaluation_strategy no --save_strategy no --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03
        --lr_scheduler_type cosine --logging_steps 1 --model_max_length 1024 --lazy_preprocess True
        --report_to none --bits 16 --bf16 False --tf32 False --use_cpu True
        --spr --spr_save_base --spr_annotations {data}/spr.json --spr_image_folder {data}/images
        --spr_clip {WORLD / "clip"} {flags}
    """.split()


def _sizes() -> list[str]:
    return [word for split, count in SIZES.items() for word in (f"--{split}", str(count))]


def _run(part: str, command: list[str], out: str) -> None:
    """Run one part with its output in the terminal; UserError with its exit code if it fails."""
    say(f"demo: {part}")
    print("  " + " ".join(command), flush=True)
    status = subprocess.run(command, env=environment()).returncode
    if status:
        raise UserError(
            f"demo: {part} ended with exit code {status}; `spr demo` goes on from what is in {out}"
        )


def environment() -> dict[str, str]:
    """Of a part: offline, on the CPU."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true", "CUDA_VISIBLE_DEVICES": ""}


def _evaluate(checkpoint: Path, data: Path, out: Path, limit: int | None) -> None:
    """lmms-eval's results and samples of a checkpoint in ``out``, unless they are there."""
    from spr_plugin.eval_tasks.run import evaluate

    kept = out / "results.json"
    if not kept.exists():
        say(f"demo: lmms-eval --tasks spr_refcoco on {checkpoint}")
        write_json(kept, evaluate(checkpoint, data, out, limit=limit, device="cpu"))


def table(rows: list[dict]) -> str:
    """Base against SPR by figure, in percent, with the 95 % interval of the gain."""
    lines = ["", f"{'':15}{'base':>8}{'SPR':>8}{'gain':>8}   95 % interval"]
    for row in rows:
        a, b, gain, low, high = (100 * row[key] for key in ("a", "b", "gain", "low", "high"))
        lines.append(f"{row['figure']:15}{a:8.1f}{b:8.1f}{gain:+8.1f}   {low:+.1f} … {high:+.1f}")
    return "\n".join(lines)


def verdict(rows: list[dict]) -> str:
    """The table in one sentence: a figure gains or loses where its whole interval lies on one side of 0."""
    from spr_plugin.eval_tasks.metrics import BOX_METRICS

    figures: dict[str, list[str]] = {"gains": [], "loses": []}
    for row in rows:
        up, down = ("gains", "loses") if BOX_METRICS[row["figure"]] else ("loses", "gains")
        if row["low"] > 0 or row["high"] < 0:
            figures[up if row["low"] > 0 else down].append(row["figure"])
    if not any(figures.values()):
        return "No figure changes beyond chance."
    words = " and ".join(f"{verb} {', '.join(names)}" for verb, names in figures.items() if names)
    return f"Beyond chance, SPR {words}{'' if figures['loses'] else ', and no figure loses'}."
