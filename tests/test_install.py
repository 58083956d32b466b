"""Wheel, editable install and uninstall in throw-away environments, used from outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BOOT_FILES = {"spr_plugin.pth", "spr_plugin.start"}
SOURCES = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "_build", "spr_plugin", "hooks", "eval_tasks"]
LOOK = "import sys, spr_plugin.hooks.shims, spr_plugin.eval_tasks; print('spr_plugin.boot' in sys.modules, 'hooks' in sys.modules)"


def call(*command, cwd, **options):
    """Run it without this session's PYTHON… settings; its output, or a failure with all it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the sources, so that no build leaves anything in the real one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, checkout, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture
def environment(tmp_path):
    """A fresh venv's Python and site-packages. A .pth lends it this environment's packages, but not the plugin's boot files."""
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path).strip())
    (site / "a_lender.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # a plain path line: .pth files there are not read
    return python, site


def install(python, *what, cwd):
    call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-build-isolation", *what, cwd=cwd)


def uninstall(python, cwd):
    call(sys.executable, "-m", "pip", "--python", python, "uninstall", "-q", "-y", "spr-plugin", cwd=cwd)


def ours(site):
    return {path.name for path in site.iterdir() if "spr" in path.name}


def test_wheel_holds_everything_at_its_place(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    record = next(name for name in names if name.endswith("/RECORD"))
    recorded = {line.rsplit(",", 2)[0] for line in zipfile.ZipFile(wheel).read(record).decode().splitlines()}
    assert names == recorded
    assert BOOT_FILES < names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"spr_plugin", *BOOT_FILES, "spr_plugin"}
    data = [path for path in (ROOT / "eval_tasks").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {f"spr_plugin/eval_tasks/{path.relative_to(ROOT / 'eval_tasks').as_posix()}" for path in data} <= names
    assert {f"spr_plugin/{path.relative_to(ROOT / 'spr_plugin').as_posix()}" for path in (ROOT / "spr_plugin").rglob("*.html")} <= names


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_install_use_and_uninstall(kind, wheel, checkout, environment, tmp_path):
    python, site = environment
    install(python, *([wheel] if kind == "wheel" else ["-e", checkout]), cwd=tmp_path)
    assert BOOT_FILES < ours(site)
    assert call(python, "-c", LOOK, "--spr", cwd=tmp_path).strip() == "True False"
    awake = "import sys; print('spr_plugin.boot' in sys.modules)"
    assert [call(python, "-c", awake, *flags, cwd=tmp_path).strip() for flags in ([], ["--spr"])] == ["False", "True"]
    assert "Usage" in call(python.parent / "spr", "--help", cwd=tmp_path)
    uninstall(python, tmp_path)
    assert ours(site) == set()
    assert call(python, "-c", "print('quiet')", "--spr", cwd=tmp_path).strip() == "quiet"


def test_a_wheel_used_from_the_checkouts_root_gets_one_line(wheel, checkout, environment, tmp_path):
    """There, ./spr_plugin hides the installed package, and its hooks are elsewhere."""
    python, _ = environment
    install(python, wheel, cwd=tmp_path)
    done = subprocess.run([python, "-m", "spr_plugin.run", "x.py", "--lr", "1"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "source folder without its hooks" in done.stderr
