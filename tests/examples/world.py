"""Modules of the tiny world, which is a folder of scripts and no package, and their data compared."""

import importlib.util
import sys
from pathlib import Path

import pytest

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


def same(one, other, but: set[str]) -> bool:
    """Whether two pieces of plain data are, to the digits that are kept, the same in all but some keys."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], but) for key in one.keys() - but)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(*pair, but) for pair in zip(one, other))
    return one == pytest.approx(other, abs=2e-6) if isinstance(one, float) else one == other
