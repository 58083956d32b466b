"""Code bases that no package index has: our miniatures, or the true trees where ``SPR_HOST_SRC`` names a
checkout that holds them.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from spr_plugin.hooks import shims

from .launch import run

HERE = Path(__file__).parent


def source(miniature: str, script: str) -> Path:
    """The folder to put on PYTHONPATH: the checkout if it holds ``script``, else
    ``tests/hosts/MINIATURE``.
    """
    checkout = Path(os.environ.get("SPR_HOST_SRC", "/nowhere"))
    return checkout if (checkout / script).exists() else HERE / miniature


def run_in(tree: Path, words: list[str], cwd: Path, **how) -> str:
    """A command with the tree on the path, to its end; what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")])))
        return run(words, cwd=cwd, **how)


class Started(Exception):
    """A script has come as far as ``trainer.train()``."""


def trainer_of(tree: Path, module: str, arguments: list[str], monkeypatch) -> tuple:
    """Run a training script in this process up to ``trainer.train()``: (its trainer, its globals)."""
    import transformers

    def stop(trainer, *args, **kwargs):
        raise Started(trainer)

    shims.install()
    package = module.split(".")[0]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tree))
    monkeypatch.setattr(transformers.Trainer, "train", stop)
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    script = importlib.import_module(module)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))  # to go when the test ends
    with pytest.raises(Started) as started:
        script.train()
    return started.value.args[0], vars(script)


def coco(world: Path) -> list[dict]:
    """Pictures of the tiny world's annotations with their rows: ``{"file_name", "width", "height", "objects":
    [(label, xyxy)]}``.
    """
    data = json.loads((world / "spr.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    found = []
    for image in data["images"]:
        rows = [row for row in data["annotations"] if row["image_id"] == image["id"]]
        corners = [[x, y, x + width, y + height] for x, y, width, height in (row["bbox"] for row in rows)]
        boxes = [(names[row["category_id"]], box) for row, box in zip(rows, corners)]
        found.append({**image, "objects": boxes})
    return found
