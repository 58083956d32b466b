"""`spr doctor`: this environment, or what a training command would meet, as checks that say what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from spr_plugin.command_line import given
from spr_plugin.errors import UserError
from spr_plugin.files import disk_errors, read_json, remove
from spr_plugin.flags import asked
from spr_plugin.lines import say
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.tools.checks import CHECKS, PICTURE, Check, as_lines, as_plain
from spr_plugin.tools.last_words import last_words

OUTPUT = "output.txt"
_SETTING = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def doctor(command: Sequence[str], out: str | None, as_json: bool) -> int:
    """Print the checks of this environment, or of `command`, and return the exit code: 1 where one fails.

    Args:
        out: folder for what a command's checks leave; None for a new one among the temporary files.

    Raises:
        UserError: `command` is none that could be looked at.
    """
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print as they are imported is no check
        checks = _of_command(command, out) if command else _of_environment()
    if as_json:
        print(json.dumps(as_plain(checks), indent=1))
    else:
        print(*as_lines(checks), sep="\n")
    return 0 if all(check.ok for check in checks) else 1


def _of_environment() -> list[Check]:
    from spr_plugin.tools.environment import environment_checks

    return environment_checks()


def _of_command(command: Sequence[str], out: str | None) -> list[Check]:
    words, settings = _split(command)
    # Unbuffered: a process that dies at once would take its last words along.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **settings}
    _refuse(words, environment)
    folder = _folder(out)
    _clear(folder)
    say(f"doctor: {words[0]} runs up to its train(); what it prints is in {folder / OUTPUT}")
    start = time.monotonic()
    code = _run([*words, "--spr_doctor", str(folder)], environment, folder / OUTPUT)
    seconds = time.monotonic() - start
    made = read_json(folder / CHECKS) or {"checks": []}
    checks = [Check(**check) for check in made["checks"]]
    return [_ended(code, bool(checks), seconds, folder / OUTPUT), *checks]


def _clear(folder: Path) -> None:
    """Remove what an earlier command left in ``--out`` and this one might not write over."""
    remove(folder / CHECKS)
    for path in folder.glob(PICTURE.format("*")):
        if path.stem.rpartition("-")[2].isdecimal():
            remove(path)


def _folder(out: str | None) -> Path:
    """The folder for what a command's checks leave, made."""
    if out is None:
        with disk_errors("a folder among the temporary files, where --out names none"):
            return Path(tempfile.mkdtemp(prefix="spr-doctor-")).absolute()
    refuse_unwritable({"--out": out}, folders=True)
    with disk_errors(f"--out {out}"):
        Path(out).mkdir(parents=True, exist_ok=True)
    return Path(out).absolute()


def _split(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """A command's words without the settings before it (``CUDA_VISIBLE_DEVICES=0 torchrun …``), and those."""
    words, settings = list(command), {}
    while words and (setting := _SETTING.fullmatch(words[0])):
        settings[setting[1]] = setting[2]
        del words[0]
    return words, settings


def _refuse(words: list[str], environment: Mapping[str, str]) -> None:
    """UserError for what would train, or cannot be started."""
    if not words:
        raise UserError("spr doctor -- COMMAND: there is no command behind the settings")
    if not asked(words):
        raise UserError(
            f"spr doctor -- {words[0]} …: no --spr is among its words, so that it would train as ever; add it"
        )
    if given(words).get("spr") is False:
        raise UserError("spr doctor: --spr False says that the stage is not wanted; leave that out")
    if any(word.startswith(("--spr_doctor", "--spr-doctor")) for word in words):
        raise UserError("spr doctor: --spr_doctor is its own; leave it out, and take --out for the folder")
    if shutil.which(words[0], path=environment.get("PATH")) is None:
        why = "is no program; put python before it" if os.path.exists(words[0]) else "no such command"
        raise UserError(f"spr doctor: {words[0]}: {why}")


def _run(words: list[str], environment: Mapping[str, str], output: Path) -> int:
    """The exit code. What the command prints goes to `output`."""
    with disk_errors(output), open(output, "wb") as file:
        try:
            return subprocess.run(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
        except OSError as error:  # a file that may be run and is no program
            raise UserError(f"spr doctor: {words[0]}: {error.strerror}") from None


def _ended(code: int, examined: bool, seconds: float, output: Path) -> Check:
    """How the command ended: well, where its checks were made."""
    if code == 0 and examined:
        return Check("command", True, f"came to its train() and ended there, in {seconds:.0f} s")
    if code == 0:
        why = "it ended well and called no train() of transformers' Trainer that --spr could follow"
        fix = "name the command that trains, in whose words --spr reaches the script; see spr_plugin.attach"
        return Check("command", False, why, fix)
    ended, why = last_words(output.read_text(errors="replace"), code)
    fix = f"mend that and run it again; all that it printed is in {output}"
    if "SIGKILL" in ended:
        fix = f"Linux ends so what needs more memory than there is: {fix}"
    return Check("command", False, f"{ended}: {why}", fix)
