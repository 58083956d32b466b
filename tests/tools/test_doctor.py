"""`spr doctor`: the commands that it cannot look at, and one real LLaVA command."""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.hooks import shims
from spr_plugin.tools import environment
from spr_plugin.tools.demo import train_command

ROOT = Path(__file__).parents[2]
# Of a training command that comes to its train() and is well.
NAMES = "command host settings output_dir data rehearsal lengths boxes trial forecast".split()


def doctor(*words, code: int = 0) -> dict:
    """The checks that `spr doctor --json` prints, by name."""
    told = CliRunner().invoke(commands, ["doctor", "--json", *map(str, words)], catch_exceptions=False)
    assert told.exit_code == code, told.output
    checks = json.loads(told.stdout)["checks"]
    assert all(check.keys() == {"name", "ok", "detail", "fix"} for check in checks)
    assert all(check["detail"] and (check["ok"] or check["fix"]) for check in checks)
    assert len({check["name"] for check in checks}) == len(checks)
    return {check["name"]: check for check in checks}


# --- this environment


def test_a_check_that_fails_says_what_to_do_and_ends_with_1(little_environment, monkeypatch):
    monkeypatch.setattr(environment, "LEAST_FREE", 1 << 62)
    monkeypatch.setattr(shims, "OLDEST", (99, 0))
    checks = doctor(code=1)
    failed = {name for name, check in checks.items() if not check["ok"]}
    assert failed == {
        "disk, current folder", "disk, temporary files", "disk, models", "transformers version"
    }  # fmt: skip
    assert "too old" in checks["transformers version"]["detail"]


# --- commands that it refuses


@pytest.mark.parametrize(
    "words, line",
    [
        (["torchrun", "train.py"], "no --spr"),
        (["python", "train.py", "--sprinkle"], "no --spr"),
        (["bash", "-c", "python train.py --spr"], "no --spr"),
        (["no-such-launcher", "train.py", "--spr"], "no-such-launcher: no such command"),
        (["A=1", "no-such-launcher", "--spr"], "no-such-launcher: no such command"),
        ([str(ROOT / "setup.cfg"), "--spr"], "setup.cfg: is no program"),
        (["A=1", "B=2"], "no command"),
        (["python", "train.py", "--spr", "False"], "--spr False"),
        (["python", "train.py", "--spr", "--spr_lambda", "x"], "--spr_lambda"),
        (["python", "train.py", "--spr", "--spr_doctor", "x"], "take --out"),
    ],
)
def test_a_command_that_is_none_to_look_at(words, line, tmp_path):
    told = CliRunner().invoke(commands, ["doctor", "--out", str(tmp_path / "out"), "--", *words])
    assert isinstance(told.exception, UserError) and line in str(told.exception)
    assert len(str(told.exception).splitlines()) == 1 and not (tmp_path / "out").exists()


def test_an_out_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    words = ["doctor", "--out", str(tmp_path / "out"), "--", "true", "--spr"]
    told = CliRunner().invoke(commands, words)
    assert isinstance(told.exception, UserError) and "--out" in str(told.exception)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    "out, line", [("/proc/x", "/proc cannot be written to"), ("x" * 300, "name too long")]
)
def test_an_out_that_cannot_be_made(out, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(commands, ["doctor", "--out", out, "--", "true", "--spr"])
    assert isinstance(told.exception, UserError) and str(told.exception).startswith(f"--out {out}: ")
    assert line in str(told.exception)


def test_no_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    told = CliRunner().invoke(commands, ["doctor", "--", "true", "--spr"])
    assert isinstance(told.exception, UserError) and "--out" in str(told.exception)


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "output.txt").mkdir()
    told = CliRunner().invoke(commands, ["doctor", "--out", str(tmp_path), "--", "true", "--spr"])
    assert isinstance(told.exception, UserError) and "output.txt" in str(told.exception)


# --- commands that do not come to their train()


@pytest.mark.parametrize(
    "program, line",
    [
        ("raise ValueError('no data at /nowhere')", "exit code 1: ValueError: no data at /nowhere"),
        ("import sys; sys.exit('bad flags')", "exit code 1: bad flags"),
        ("import argparse; argparse.ArgumentParser('train').parse_args()", "unrecognized arguments: --spr"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL: it printed nothing"),
        ("import os; print('once\\n' + os.environ['LAB']); os._exit(3)", "exit code 3: in its own words"),
        ("print('trained by a loop of its own')", "called no train()"),
    ],
)
def test_a_command_that_fails_in_the_host(program, line, tmp_path):
    words = ["LAB=in its own words", sys.executable, "-c", program, "--spr"]
    (tmp_path / "checks.json").write_text('{"checks": [{"name": "host", "ok": true, "detail": "of before"}]}')
    checks = doctor("--out", tmp_path, "--", *words, code=1)
    assert list(checks) == ["command"] and line in checks["command"]["detail"]
    assert (tmp_path / "output.txt").exists()


def test_a_script_that_is_not_there(tmp_path):
    checks = doctor("--out", tmp_path, "--", sys.executable, "nowhere.py", "--spr", code=1)
    assert "exit code 2" in checks["command"]["detail"] and "nowhere.py" in checks["command"]["detail"]


def test_a_command_killed_by_a_signal_without_a_name(tmp_path):
    words = [sys.executable, "-c", "import os; os.kill(os.getpid(), 40)", "--spr"]
    detail = doctor("--out", tmp_path, "--", *words, code=1)["command"]["detail"]
    assert detail == "killed by signal 40: it printed nothing"


LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node", "1"],
    "accelerate": ["-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "1"],
    "deepspeed": ["-m", "deepspeed.launcher.runner", "--num_gpus", "1"],
}
# What each is given; test_last_words.py has all of them with all of these.
SCRIPTS = {
    "torchrun": ("import sys; sys.exit('no data in /nowhere')", "exit code 1: no data in /nowhere"),
    "accelerate": ("import os; print('shard 1'); os.kill(os.getpid(), 9)", "killed by SIGKILL: shard 1"),
    "deepspeed": (None, "exit code 2: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_a_launcher_s_program_said(launcher, tmp_path):
    """Not what the launcher makes of it, nor the launcher's own exit code."""
    pytest.importorskip("torch" if launcher == "torchrun" else launcher)
    script, (program, line) = tmp_path / "train.py", SCRIPTS[launcher]
    if program:
        script.write_text(program)
    words = [sys.executable, *LAUNCHERS[launcher], script, "--spr"]
    detail = doctor("--out", tmp_path / "out", "--", *words, code=1)["command"]["detail"]
    assert detail.startswith(line) and (program or f"can't open file '{script}'" in detail)


# --- one that does


@pytest.mark.slow
def test_a_real_llava_command(tiny_world, tmp_path, monkeypatch):
    """LLaVA's own script under torchrun: everything is looked at, and the folder that it would write to is
    not even made.
    """
    monkeypatch.chdir(ROOT)
    world, out = tiny_world(sft=4, spr=8), tmp_path / "llava-spr"
    flags = "--spr_regions 8 --spr_max_new_tokens 24 --spr_sample_batch 6 --spr_batch_size 2"
    python, *script = train_command(world, out, flags)
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    checks = doctor("--out", tmp_path / "doctor", "--", *torchrun, *script)
    assert list(checks) == NAMES
    assert "LlavaHost" in checks["host"]["detail"] and "family llava" in checks["host"]["detail"]
    assert "8 queries on 8 pictures" in checks["data"]["detail"]
    assert not out.exists()
    assert "8 queries at most" in checks["forecast"]["detail"] and "dpo 0." in checks["forecast"]["detail"]
    assert len(list((tmp_path / "doctor").glob("boxes-*.png"))) == 8
    assert not (tmp_path / "doctor" / "trial").exists()
    assert "train_runtime" not in (tmp_path / "doctor" / "output.txt").read_text()
    assert os.listdir(tmp_path) == ["doctor"]


def test_what_an_earlier_command_left_is_not_taken_for_this_one_s(tmp_path):
    """Checks and drawn boxes go; what is not the doctor's stays."""
    for name in ("checks.json", "boxes-1.png", "boxes-12.png", "boxes-mine.png", "boxes-1.png.txt"):
        (tmp_path / name).write_text("{}")
    checks = doctor("--out", tmp_path, "--", "true", "--spr", code=1)
    assert list(checks) == ["command"]
    assert {path.name for path in tmp_path.iterdir()} == {"output.txt", "boxes-mine.png", "boxes-1.png.txt"}
