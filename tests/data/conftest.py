"""Pictures that the tests of this folder name, and files of Objects365's make."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "annotations.py"


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (100, 50), "red").save(tmp_path / "a.jpg")
    Image.new("L", (40, 80)).save(tmp_path / "b.png")
    return tmp_path


@pytest.fixture(scope="session")
def objects365():
    """``objects365(path, images, boxes)`` writes a file in the layout of Objects365's."""
    return runpy.run_path(str(BENCHMARK))["write"]
