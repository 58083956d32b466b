"""Modules of the tiny world, which is a folder of scripts and no package."""

import importlib.util
import sys
from pathlib import Path

WORLD = Path(__file__).resolve().parents[2] / "examples" / "tiny_world"


def load(name):
    """The world's module ``name``, by its path (``reproduce/run`` too); one for all who ask."""
    known = f"tiny_world_{name.replace('/', '_')}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, WORLD / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
