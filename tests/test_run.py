"""The fallback ``python -m spr_plugin.run``, with boot files switched off where that matters."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from spr_plugin import run

pytestmark = pytest.mark.legacy

SCRIPT = """
import sys
boot = sys.modules.get("spr_plugin.boot")
print(sys.argv[1:], __name__, bool(boot and boot.State.awake), sys.path[0])
"""


def fallback(tmp_path, *command, site=True):
    """Run it; ``site=False`` as ``python -S``, with the packages found through PYTHONPATH."""
    (tmp_path / "scripts").mkdir(exist_ok=True)
    (tmp_path / "scripts" / "script.py").write_text(SCRIPT)
    (tmp_path / "mod.py").write_text(SCRIPT)
    words = [sys.executable, *([] if site else ["-S"]), "-m", "spr_plugin.run", *command]
    return subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path, site)
    )


def environment(tmp_path, site):
    if site:
        return None
    # -S reads no .pth, hence knows nothing of an editable install either: lay the package out as a wheel
    # does.
    import spr_plugin
    import spr_plugin.hooks

    root = tmp_path / "site" / "spr_plugin"
    if not root.exists():
        root.mkdir(parents=True)
        for file in Path(spr_plugin.__file__).parent.glob("*.py"):
            (root / file.name).symlink_to(file)
        (root / "hooks").symlink_to(Path(spr_plugin.hooks.__file__).parent)
    return {"PYTHONPATH": f"{root.parent}:{sysconfig.get_paths()['purelib']}"}


@pytest.mark.parametrize("site", [True, False])
def test_script(tmp_path, site):
    done = fallback(tmp_path, "scripts/script.py", "--lr", "1", "--spr", site=site)
    assert done.stdout.split("] ")[0] == "['--lr', '1', '--spr'", done.stderr
    assert done.stdout.strip().endswith(f"__main__ True {tmp_path}/scripts")


@pytest.mark.parametrize("site", [True, False])
def test_module(tmp_path, site):
    done = fallback(tmp_path, "-m", "mod", "--spr", site=site)
    assert "['--spr'] __main__ True" in done.stdout, done.stderr


def test_a_leading_python_is_understood(tmp_path):
    assert "['--spr'] __main__ True" in fallback(tmp_path, "python", "scripts/script.py", "--spr").stdout


def test_without_flags_it_is_plain_python(tmp_path):
    assert "[] __main__ False" in fallback(tmp_path, "scripts/script.py").stdout


@pytest.mark.parametrize("command", [[], ["-m"], ["--spr"], ["nowhere.py", "--spr"]])
def test_a_wrong_command_gets_one_line(tmp_path, command):
    done = fallback(tmp_path, *command)
    assert (
        done.returncode == 2 and done.stderr.startswith("spr: error: ") and len(done.stderr.splitlines()) == 1
    )


def test_source_folder_without_hooks_gets_one_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run.main(["train.py"])
    assert "source folder without its hooks" in capsys.readouterr().err
