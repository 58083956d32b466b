"""The commands of README and docs/train.md, with what a rehearsal changes in them; each change is listed."""

import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import shapes

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
NEXT = ROOT / "tests" / "hosts" / "llava_next"
PAGE = ROOT / "docs" / "train.md"
STARTS = {
    "llava": "deepspeed llava/train/train_mem.py",
    "llava_next": "torchrun --nproc_per_node 8 llava/train/train_mem.py",
    "transformers": "python examples/finetune_vlm.py",
}
NO_FLAG = None  # of the page that is left out
HERE_ALONE = {
    "--deepspeed": NO_FLAG,
    "--use_cpu": "True",
    "--tf32": "False",
    "--per_device_train_batch_size": "1",
    "--dataloader_num_workers": "0",
}


@dataclass(frozen=True)
class Command:
    """One that can be started.

    Attributes:
        words: with the program.
        changed: what the page has otherwise, in words.
        environment: beside the process's own.
        folder: where it starts.
    """

    words: list[str]
    changed: list[str]
    environment: dict[str, str]
    folder: Path


def of_shape(one: shapes.Rehearsed, model: Path, data: Path, out: Path) -> Command:
    """The host's command on these weights (``model``, beside ``clip``) and data (``data.json``,
    ``annotations.json``, ``images``)."""
    clip, host = model.parent / "clip", one.host
    page = flags_of(shown(STARTS[host]))
    changes = {**HERE_ALONE, **own_changes(one, model, clip, data), **spr_changes(data)}
    changes["--output_dir"] = str(out)
    if "--tf32" not in page:
        del changes["--tf32"]
    flags, told = changed(page, changes)
    environment = {
        "HF_HUB_OFFLINE": "1",
        "WANDB_DISABLED": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*([str(NEXT)] if host == "llava_next" else []), str(ROOT)]),
    }
    return Command(
        [*program(host), *words_of(flags)], told, environment, NEXT if host == "llava_next" else ROOT
    )


def program(host: str) -> list[str]:
    """What starts the host's script, without a launcher."""
    if host == "llava":
        return [sys.executable, "-m", "llava.train.train"]
    if host == "llava_next":
        return [sys.executable, str(NEXT / "llava" / "train" / "train.py")]
    whole = importlib.util.find_spec("torchvision")
    script = ROOT / "examples" / "finetune_vlm.py" if whole else HERE / "pictures_only.py"
    return [sys.executable, str(script)]


def own_changes(one: shapes.Rehearsed, model: Path, clip: Path, data: Path) -> dict[str, str | None]:
    """What the host's own flags are changed to."""
    records, images = str(data / "data.json"), str(data / "images")
    if one.host == "transformers":
        where = {"--model": str(model), "--data": records, "--images": images, "--spr_clip": str(clip)}
        return {**where, "--lora": "True"}
    where = {"--model_name_or_path": str(model), "--data_path": records, "--image_folder": images}
    where["--vision_tower"] = str(clip)
    if one.host == "llava":
        return {**where, "--lora_r": str(one.rank), "--lora_alpha": str(2 * one.rank)}
    grid = json.dumps([[2 * one.side, one.side], [one.side, 2 * one.side]], separators=(",", ":"))
    anyres = {"--image_aspect_ratio": "anyres", "--image_grid_pinpoints": grid}
    return {**where, **anyres, "--attn_implementation": "sdpa"}


def spr_changes(data: Path) -> dict[str, str | None]:
    """Ten regions, two answers of eight tokens to each, two steps of one pair."""
    return {
        "--spr_only": "",
        "--spr_annotations": str(data / "annotations.json"),
        "--spr_image_folder": str(data / "images"),
        "--spr_plugin": str(HERE / "answers.py"),
        "--spr_recipe": "rehearsed",
        "--spr_regions": str(shapes.REGIONS),
        "--spr_regions_per_image": "6",
        "--spr_prompts": "plain",
        "--spr_samples": str(shapes.SAMPLES),
        "--spr_max_new_tokens": str(shapes.NEW_TOKENS),
        "--spr_sample_batch": "1",
        "--spr_batch_size": "1",
        "--spr_epochs": "0.2",
    }


def shown(start: str) -> list[str]:
    """The words of the page's command that begins with ``start``, without these."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(start)]
    return shlex.split(block.replace("\\\n", " "))[len(start.split()) :]


def flags_of(words: list[str]) -> dict[str, str]:
    """Flag → its value, "" for one without."""
    flags: dict[str, str] = {}
    for word in words:
        if word.startswith("--"):
            last = word
            flags[last] = ""
        else:
            flags[last] = f"{flags[last]} {word}".strip()
    return flags


def words_of(flags: Mapping[str, str]) -> list[str]:
    return [word for flag, value in flags.items() for word in ([flag, value] if value else [flag])]


def changed(page: Mapping[str, str], changes: Mapping[str, str | None]) -> tuple[dict[str, str], list[str]]:
    """The page's flags with the changes, and each change in words: files by their names."""
    flags, told = dict(page), []
    for flag, value in changes.items():
        if value is NO_FLAG:
            if flags.pop(flag, NO_FLAG) is not NO_FLAG:
                told.append(f"no {flag}")
        elif page.get(flag) != value:
            flags[flag] = value
            short = Path(value).name if value.startswith("/") else value
            was = f" (the page: {page[flag]})" if page.get(flag) else ""
            told.append(f"{flag} {short}".strip() + was)
    return flags, told
