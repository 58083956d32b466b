"""Pictures that the tests of this folder name."""

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (100, 50), "red").save(tmp_path / "a.jpg")
    Image.new("L", (40, 80)).save(tmp_path / "b.png")
    return tmp_path
