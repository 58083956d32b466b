"""Where the browser comes from: what does not start is passed over; where none can be had, a line says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import chromium


@pytest.fixture
def find(tmp_path):
    """``find(**programs)`` → what is found on a machine that has those shell scripts and no network."""

    def run(**programs):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("sh", "ln"):
            (folder / name).symlink_to(shutil.which(name))
        for name, script in programs.items():
            (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name.replace("_", "-")).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": str(folder),
            "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "own"),
            "PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:9",
        }
        words = [sys.executable, Path(chromium.__file__)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_without_any_one_line_says_what_was_tried(find):
    done = find(chromium="exit 1", apt_get="echo E: Unable to locate package chromium; exit 100")
    *_, line = done.stderr.splitlines()
    assert done.returncode == 1 and not done.stdout
    assert line.startswith("no browser can be had here: install chromium (playwright install ")
    assert "Traceback" not in done.stderr
    if not os.geteuid():
        assert line.endswith("; apt-get install: E: Unable to locate package chromium)")


@pytest.mark.skipif(os.geteuid() != 0, reason="installing a package is root's")
def test_one_that_was_fetched_is_found(find, tmp_path):
    real = next(filter(None, map(shutil.which, chromium.NAMES)), None)
    if real is None:
        pytest.skip("there is none to be found")
    package = tmp_path / "package"
    package.write_text(f'#!/bin/sh\nPATH="{os.environ["PATH"]}" exec {real} "$@"\n')
    package.chmod(0o755)
    done = find(apt_get=f'case "$*" in *chromium*) ln -s {package} {tmp_path}/bin/google-chrome;; esac')
    assert done.returncode == 0 and done.stdout == f"{tmp_path}/bin/google-chrome\n"
