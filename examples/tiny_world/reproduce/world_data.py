"""Data of the study: what is trained on and what is asked, each folder made once, and no picture in both."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import plan
import scenes
from result_files import found
from spr_plugin.errors import UserError
from spr_plugin.files import write_json


def training_data(out: Path, world: dict) -> Path:
    """SPR's scenes with their boxes, and LLaVA's conversations."""
    name = "-".join(f"{key}-{value}" for key, value in world.items() if plan.SCENES.get(key) != value)
    return written(out / f"data-{name}", scenes.write_world, world)


def evaluation_data(out: Path, asked: plan.Asked) -> Path:
    """All that is asked about these scenes."""
    settings = {"split": asked.split, **asked.numbers()}
    return written(out / f"data-{asked.split}-{asked.seed}", scenes.write_evaluation, settings)


def written(folder: Path, write: Callable, settings: dict) -> Path:
    """`folder`, made by `write` unless it is whole. UserError where it was made with other settings."""
    if not found(folder / "manifest.json", settings):
        write(folder, **settings)
        write_json(folder / "manifest.json", settings)
    return folder


def refuse_shared(training: Path, evaluation: Path) -> None:
    """UserError where a picture of `evaluation` is one of `training` too, by hash."""
    theirs, ours = pictures(evaluation), pictures(training)
    if shared := theirs.keys() & ours.keys():
        hash = min(shared)
        raise UserError(
            f"reproduce: {len(shared)} pictures would be trained and measured on, {theirs[hash]} is"
            f" {ours[hash]}"
        )


def pictures(folder: Path) -> dict[str, Path]:
    """Hash → picture."""
    return {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in sorted(folder.rglob("*.png"))}


@functools.cache
def weights_hash(world: Path) -> str:
    """Of what is embedded: models that answer, score and detect."""
    files = sorted(world.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
