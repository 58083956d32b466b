"""sdist, wheel, editable install and uninstall in throw-away environments; what type checkers see of a
checkout.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BOOT_FILES = {"spr_plugin.pth", "spr_plugin.start"}
SOURCES = [
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "_build",
    "spr_plugin",
    "hooks",
    "eval_tasks",
    "examples/tiny_world",
]
LOOK = (
    "import sys, spr_plugin.hooks.shims, spr_plugin.eval_tasks; print('spr_plugin.boot' in sys.modules,"
    " 'hooks' in sys.modules)"
)


def call(*command, cwd, **options):
    """Run it without this session's PYTHON… settings; its output, or a failure with all it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the sources as ``git clone`` makes it, so that no build leaves anything in the real one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                folder / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "reproduce", "recipes_study"),
            )
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    build = "import sys; sys.path.insert(0, '_build'); import backend; backend.build_sdist(sys.argv[1])"
    call(sys.executable, "-c", build, folder, cwd=checkout)
    return next(folder.glob("*.tar.gz"))


def build_wheel(source, folder):
    options = ["-q", "--no-deps", "--no-build-isolation"]
    call(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """As an index offers it: built from the sdist."""
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def environment(tmp_path):
    """A fresh venv's Python and site-packages. A .pth lends it this environment's packages, but not the
    plugin's boot files.
    """
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path).strip()
    )
    # A plain path line: .pth files there are not read.
    (site / "a_lender.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python, site


def install(python, *what, cwd):
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        *what,
        cwd=cwd,
    )


def uninstall(python, cwd):
    call(sys.executable, "-m", "pip", "--python", python, "uninstall", "-q", "-y", "spr-plugin", cwd=cwd)


def ours(site):
    return {path.name for path in site.iterdir() if "spr" in path.name}


def test_wheel_holds_everything_at_its_place(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    record = next(name for name in names if name.endswith("/RECORD"))
    recorded = {line.rsplit(",", 2)[0] for line in zipfile.ZipFile(wheel).read(record).decode().splitlines()}
    assert names == recorded
    assert {*BOOT_FILES, "spr_plugin/py.typed"} < names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"spr_plugin", *BOOT_FILES}
    data = [path for path in (ROOT / "eval_tasks").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {
        f"spr_plugin/eval_tasks/{path.relative_to(ROOT / 'eval_tasks').as_posix()}" for path in data
    } <= names
    assert {
        f"spr_plugin/{path.relative_to(ROOT / 'spr_plugin').as_posix()}"
        for path in (ROOT / "spr_plugin").rglob("*.html")
    } <= names


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_install_use_and_uninstall(kind, wheel, checkout, environment, tmp_path):
    python, site = environment
    install(python, *([wheel] if kind == "wheel" else ["-e", checkout]), cwd=tmp_path)
    assert BOOT_FILES < ours(site)
    assert call(python, "-c", LOOK, "--spr", cwd=tmp_path).strip() == "True False"
    awake = "import sys; print('spr_plugin.boot' in sys.modules)"
    assert [call(python, "-c", awake, *flags, cwd=tmp_path).strip() for flags in ([], ["--spr"])] == [
        "False",
        "True",
    ]
    assert "Usage" in call(python.parent / "spr", "--help", cwd=tmp_path)
    more = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "spr-plugin[report]"]
    told = call(*more, cwd=tmp_path)  # what our lines tell people: it needs no index that has us
    assert "already satisfied: jinja2" in told and BOOT_FILES < ours(site)
    uninstall(python, tmp_path)
    assert ours(site) == set()
    assert call(python, "-c", "print('quiet')", "--spr", cwd=tmp_path).strip() == "quiet"


def test_the_wheel_of_the_sdist_is_that_of_the_checkout_and_holds_each_module_once(wheel, checkout, tmp_path):
    """A checkout has two ways to hooks/ and eval_tasks/: neither doubles a file, and none is lost on the
    way.
    """
    files = {}
    for path in (wheel, build_wheel(checkout, tmp_path)):
        with zipfile.ZipFile(path) as archive:
            assert len(archive.namelist()) == len(set(archive.namelist()))
            files[path] = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
    assert files[wheel] == files[path]
    modules = [text for text in files[wheel].values() if text.strip()]
    assert len(modules) == len(set(modules))
    sources = [
        p
        for folder in ("spr_plugin", "hooks", "eval_tasks", "examples/tiny_world")
        for p in (checkout / folder).rglob("*.py")
    ]
    written = {p.resolve() for p in sources}
    assert len(files[wheel]) == len(written)


SMALL_DEMO = """
from spr_plugin.tools import demo
demo.SIZES = {"sft": 8, "spr": 4, "val": 1, "test": 1}
demo.FLAGS = "--spr_regions 4 --spr_max_new_tokens 24 --spr_min_kept 0 --spr_tune full --spr_batch_size 2"
demo.trained("demo")
"""


def test_the_wheel_s_demo_runs_in_an_empty_folder(wheel, environment, tmp_path):
    """Its data and its training in small: the embedded world comes out of the wheel, and no path leads into a
    checkout.
    """
    python, site = environment
    install(python, wheel, cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    printed = call(python, "-c", SMALL_DEMO, cwd=empty)
    assert (empty / "demo" / "llava-spr" / "spr" / "report.html").exists()
    assert sorted(path.name for path in empty.iterdir()) == ["demo"]
    config = json.loads((empty / "demo" / "llava-spr" / "config.json").read_text())
    assert Path(config["mm_vision_tower"]).is_relative_to(empty)
    assert str(ROOT) not in printed.replace(str(sys.prefix), "")
    assert str(site / "spr_plugin" / "tiny_world") in printed


def test_the_demo_names_what_is_not_installed(wheel, environment, tmp_path):
    """Nothing is lent here: torch and all that comes with it are missing, and no data is made."""
    python, site = environment
    install(python, wheel, cwd=tmp_path)
    lent = site / "a_lender.pth"
    only = tmp_path / "only"
    only.mkdir()
    for name in (
        "pluggy",
        "click",
        "numpy",
        "numpy.libs",
        "PIL",
        "pillow.libs",
        "scipy",
        "scipy.libs",
        "tqdm",
    ):
        (only / name).symlink_to(Path(sysconfig.get_paths()["purelib"]) / name)
    lent.write_text(f"{only}\n")
    done = subprocess.run([python.parent / "spr", "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "demo").exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith("spr: error: spr demo runs torch, transformers, peft, trl, llava, lmms_eval")
    assert "pip install --no-deps lmms-eval llava-torch" in line


RUN = ["-m", "spr_plugin.run", "x.py", "--lr", "1"]


def test_an_installed_wheel_leaves_a_checkout_usable_from_its_root(wheel, checkout, environment, tmp_path):
    """There ./spr_plugin hides the installed package, and its links lead to hooks/."""
    python, _ = environment
    install(python, wheel, cwd=tmp_path)
    where = (
        "import spr_plugin.hooks.shims as s, spr_plugin.eval_tasks.metrics as m; print(s.__file__,"
        " m.__file__)"
    )
    files = [Path(word).resolve() for word in call(python, "-c", where, cwd=checkout).split()]
    assert files == [checkout / "hooks" / "shims.py", checkout / "eval_tasks" / "metrics.py"]
    assert call(python, "-c", LOOK, cwd=checkout).strip() == "False False"


def test_a_wheel_used_from_an_unpacked_sdists_root_gets_one_line(wheel, sdist, environment, tmp_path):
    """An sdist has no links: its ./spr_plugin hides the installed package, and its hooks are elsewhere."""
    python, _ = environment
    install(python, wheel, cwd=tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)  # of our own making; 3.10 has no filter for others
    (unpacked,) = tmp_path.glob("spr_plugin-*")
    done = subprocess.run([python, *RUN], cwd=unpacked, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "source folder without its hooks" in done.stderr


def test_type_checkers_find_hooks_and_eval_tasks_in_a_checkout(checkout):
    """Without an installation, by the folders alone, as editors do."""
    from mypy.fscache import FileSystemCache
    from mypy.modulefinder import FindModuleCache, SearchPaths
    from mypy.options import Options

    paths = SearchPaths((str(checkout),), (), (), ())
    finder = FindModuleCache(paths, FileSystemCache(), Options())
    for name in ("hooks", "hooks.clip", "eval_tasks", "eval_tasks.metrics"):
        found = finder.find_module(f"spr_plugin.{name}")
        assert isinstance(found, str), name
        assert Path(found).resolve().is_relative_to(checkout / name.split(".")[0])
