"""`make` refuses a Python that is too old, or newer than any that is tested, in one line, before anything is
installed, and takes the others.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make(target: str, python, environment: Path) -> subprocess.CompletedProcess:
    words = ["make", "-n", "-s", target, f"PYTHON={python}", f"VENV={environment}", f"LEGACY={environment}"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def old_python(tmp_path_factory) -> str:
    """A real one where the machine has it, else a program that answers as one does."""
    for name in ("python3.9", "python3.8", "python2.7"):
        if (found := shutil.which(name)) and subprocess.run(
            [found, "-V"], capture_output=True
        ).returncode == 0:
            return found
    fake = tmp_path_factory.mktemp("bin") / "python3.9"
    fake.write_text("#!/bin/sh\necho 3.9.18\n")
    fake.chmod(0o755)
    return str(fake)


@pytest.mark.parametrize("target", ["demo", "test", "docs"])
def test_an_old_python_is_refused_in_one_line(target, old_python, tmp_path):
    done = make(target, old_python, tmp_path / "none")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert "needs Python 3.10 to 3.13" in line and old_python in line


def test_a_python_that_nothing_is_tested_on_is_refused_too(tmp_path):
    """By the real interpreter's answer to the Makefile's own question."""
    (tmp_path / "newer.py").write_text("import sys; sys.version_info, sys.version = (3, 14, 0), '3.14.0 (x)'")
    newer = tmp_path / "python3.14"
    newer.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"$(cat {tmp_path}/newer.py); exec('''$2''')\"\n")
    newer.chmod(0o755)
    (line,) = make("demo", newer, tmp_path / "none").stderr.splitlines()
    assert f"needs Python 3.10 to 3.13, and {newer} is 3.14.0: make" in line


@pytest.mark.parametrize("python", ["no-such-python", "/etc"])
def test_what_is_no_python_is_refused_too(python, tmp_path):
    done = make("demo", python, tmp_path / "none")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert f"needs Python 3.10 to 3.13, and {python} is no Python that starts: make" in line


@pytest.mark.parametrize("target", ["demo", "docs"])
def test_this_python_is_taken(target, tmp_path):
    done = make(target, sys.executable, tmp_path / "none")
    assert done.returncode == 0 and not done.stderr
    assert "pip install" in done.stdout


def test_metadata_and_makefile_promise_the_same_pythons():
    """The oldest of python_requires is the one of the Makefile; it and the newest are in `make matrix`."""
    metadata, makefile = ((ROOT / name).read_text() for name in ("setup.cfg", "Makefile"))
    named = [
        line.rsplit(" ", 1)[1]
        for line in metadata.splitlines()
        if "Programming Language :: Python :: 3." in line
    ]
    oldest, newest = named[0], named[-1]
    (major, least), (_, most) = oldest.split("."), newest.split(".")
    promised = f"python_requires = >={oldest}, <{major}.{int(most) + 1}\n"
    assert named == [f"{major}.{minor}" for minor in range(int(least), int(most) + 1)]
    assert promised in metadata and f"PYTHONS ?= {oldest} {newest}\n" in makefile
    assert f"({major}, {least}) <= sys.version_info[:2] <= ({major}, {most})" in makefile
    for page in ("README.md", "docs/quick-start.md"):
        assert f"Python {oldest} to {newest}," in (ROOT / page).read_text()


def test_metadata_and_citation_name_the_same_paper():
    (url,) = [line for line in (ROOT / "setup.cfg").read_text().splitlines() if "Paper = " in line]
    assert f"url: {url.split(' = ')[1]}\n" in (ROOT / "CITATION.cff").read_text()
