import subprocess
import sys

import pytest

from .launch import TINY


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A small tiny world on disk: scenes for SFT, for SPR and held out."""
    folder = tmp_path_factory.mktemp("world")
    sizes = "--sft 24 --spr 16 --val 4 --test 6".split()
    subprocess.run([sys.executable, str(TINY / "scenes.py"), str(folder), *sizes], check=True, stdout=subprocess.DEVNULL)
    return folder
