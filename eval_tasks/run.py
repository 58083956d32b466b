"""Measure a LLaVA checkpoint with lmms-eval, as a user's own command would, and read the figures back."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.hub import ROOT
from spr_plugin.loading import read_json

GROUP = "spr_refcoco"
LOG = "lmms_eval.log"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Why a run failed: our own refusal, the error that lmms-eval caught, any other.
_REASONS = (
    re.compile(r"^spr: error: (.+)", re.MULTILINE),
    re.compile(r"Error during evaluation: (.+?)(?:\. Please set|$)", re.MULTILINE),
    re.compile(r"^(\w*Error: .+)", re.MULTILINE),
)


def evaluate(
    checkpoint: str | Path,
    data_root: str | Path,
    out_dir: str | Path,
    limit: int | None = None,
    batch_size: int | str = "auto",
    tasks: str = GROUP,
    device: str | None = None,
) -> dict[str, float]:
    """Run ``lmms-eval --model spr_llava`` on `checkpoint`, offline, and return ``{metric: value}``.

    Args:
        checkpoint: folder in the layout that LLaVA's own scripts save (full weights; merge a LoRA first).
        data_root: becomes ``SPR_DATA_ROOT``.
        out_dir: gets lmms-eval's results and samples, and its output in ``lmms_eval.log``.
        limit: documents of each split; None for all.
        batch_size: prompts answered together; the answers do not depend on it (up to rounding).
        tasks: one task or group.
        device: "cpu" or "cuda:0"; None takes the GPU where there is one.

    Raises UserError, in one line, where nothing can be measured or lmms-eval leaves no result (it exits with
    0 even then).
    """
    checkpoint, out_dir = Path(checkpoint).resolve(), Path(out_dir).resolve()
    _require_checkpoint(checkpoint)
    out_dir.mkdir(parents=True, exist_ok=True)
    earlier = set(_result_files(out_dir))
    command = lmms_eval_command(checkpoint, out_dir, tasks, limit, batch_size, device or _default_device())
    log = out_dir / LOG
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=_environment(os.environ, data_root)
        ).returncode
    new = sorted(set(_result_files(out_dir)) - earlier)
    if status or not new:
        raise UserError(
            f"lmms-eval left no result for {checkpoint} (status {status}): {_reason(log)}; its output is in"
            f" {log}"
        )
    return read_metrics(new[-1], tasks)


def lmms_eval_command(
    checkpoint: Path, out_dir: Path, tasks: str, limit: int | None, batch_size: int | str, device: str
) -> list[str]:
    """The lmms-eval command line that measures `checkpoint`; a user can run the same by hand."""
    command = [
        sys.executable,
        "-m",
        "lmms_eval",
        "--model",
        "spr_llava",
        "--model_args",
        f"pretrained={checkpoint},conv_template=vicuna_v1",
        "--device",
        device,
        "--tasks",
        tasks,
    ]
    command += ["--batch_size", str(batch_size), "--log_samples", "--output_path", str(out_dir)]
    return command if limit is None else [*command, "--limit", str(limit)]


def read_metrics(results_file: Path, task: str) -> dict[str, float]:
    """lmms-eval's ``*_results.json`` → the plain values of one task or group, without filter names and
    standard errors.
    """
    content = read_json(results_file, str(results_file))
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise UserError(f"{results_file}: has no results of lmms-eval")
    if task not in results:
        raise UserError(
            f"{results_file}: has no result of {task}, only of {', '.join(sorted(results)) or 'nothing'}"
        )
    plain = {
        key.removesuffix(",none"): value
        for key, value in results[task].items()
        if key.endswith(",none") and "_stderr" not in key
    }
    return {key: value for key, value in plain.items() if isinstance(value, (int, float))}


def _require_checkpoint(checkpoint: Path) -> None:
    if importlib.util.find_spec("lmms_eval") is None:
        raise UserError(
            "lmms-eval is not installed: pip install --no-deps lmms-eval && pip install 'spr-plugin[eval]'"
        )
    if not (checkpoint / "config.json").is_file():
        raise UserError(f"{checkpoint}: is not a checkpoint, it has no config.json")
    if (checkpoint / "adapter_config.json").is_file():
        raise UserError(
            f"{checkpoint}: holds a LoRA adapter, which lmms-eval cannot load; merge it with LLaVA's"
            " merge_lora_weights.py"
        )
    if set(str(checkpoint)) & set(",="):
        raise UserError(
            f"{checkpoint}: lmms-eval splits its arguments at ',' and '='; give the folder another name"
        )


def _environment(environ: Mapping[str, str], data_root: str | Path) -> dict[str, str]:
    return {
        **environ,
        ROOT: str(Path(data_root).resolve()),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "WANDB_DISABLED": "true",
    }


def _default_device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _result_files(out_dir: Path) -> list[Path]:
    return list(out_dir.rglob("*_results.json"))


def _reason(log: Path) -> str:
    """Why a run failed, from its output: our own refusal, else the error that lmms-eval caught, else the last
    line.
    """
    text = _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace"))
    for reason in _REASONS:
        if reasons := reason.findall(text):
            return reasons[-1].strip()
    return (text.strip() or "it printed nothing").splitlines()[-1].strip()
