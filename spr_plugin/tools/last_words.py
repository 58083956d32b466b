"""Why a command ended, by what it printed: its launcher's last words, which are many, come after its own."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator

from spr_plugin.redaction import redacted

_RANK = re.compile(r"\[[a-z]+\d+\]: ?")  # what torch and torchrun put before a rank's lines
_TRACEBACK = "Traceback (most recent call last)"
_BOXED = tuple("╭│╰")  # the lines of a traceback by rich, whose last line is a plain one behind them
# Lines that say why a program ended, beside the last one of a traceback: argparse's, and an exception below
# indented lines, as of a syntax error.
_PARSERS = re.compile(r"\S+: error: .*")
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt|Exit)\b.*")
# What a rank says because another one has gone.
_LEFT_ALONE = re.compile(r".*(?:Connection (?:closed|reset) by peer|remote process exited)")
# What launchers log: deepspeed; torchrun of today, of torch 2.1 and 2.2, and before; what torchrun and
# accelerate say of settings that they chose.
_LOGGED = re.compile(
    r"\[[^]]+\] \[[A-Z]+\] \[(?:launch|runner|multinode_runner|real_accelerator)\.py:\d+:"
    r"|[A-Z]\d{4} .*torch/distributed/\S+\]"
    r"|\[[^]]+\] torch\.distributed\.\S+: \[[A-Z]+\]"
    r"|[A-Z]+:torch\.distributed\."
    r"|\*{9,}$|Setting OMP_NUM_THREADS environment variable"
    r"|The following values were not passed to `accelerate launch`|\s+`--\w+` was set to a value of"
    r"|To avoid this warning pass in values for each of the problematic parameters"
)
# The exception that a launcher ends with, and where one is raised that a script may raise as well.
_ENDED = re.compile(r"torch\.distributed\.\S*(?:ChildFailedError|SignalException)\b")
_CALLED = re.compile(r"(?:\w+\.)*CalledProcessError\b")
_IN_LAUNCHER = re.compile(r'\s+File ".*(?:accelerate/commands|deepspeed/launcher)/')
_FENCE = re.compile(r"={9,}$")  # above and below torchrun's table of ranks
# What a launcher says of the program's own exit code.
_CODES = re.compile(
    r"exitcode +: (-?\d+) |exits with return code = (-?\d+)|returned non-zero exit status (\d+)"
    r"|died with <Signals\.\w+: (\d+)>|died with unknown signal (\d+)"
)
_SIGNALS = (4, 5)  # groups of _CODES that are a signal's number


def last_words(printed: str, code: int) -> tuple[str, str]:
    """How a failed command ended (``exit code 1``, ``killed by SIGKILL``), and the line that says why.

    Args:
        printed: by the command, its launcher among it.
        code: that it ended with; a launcher's is not its program's.
    """
    lines = [_RANK.sub("", line, 1).rstrip() for line in printed.splitlines()]
    own, launcher_s = _parted([line for line in lines if line and not line.startswith(_BOXED)])
    code = next(_codes(launcher_s), code)
    return how(code), redacted(_why(own, code).strip())


def how(code: int) -> str:
    """An exit code in words; a shell's for a program that was killed too.

    >>> how(-9), how(-40), how(3), how(137)
    ('killed by SIGKILL', 'killed by signal 40', 'exit code 3', 'exit code 137, as of one killed by SIGKILL')
    """
    if code < 0:
        return f"killed by {_signal(-code)}"
    killed = f", as of one killed by {_signal(code - 128)}" if 128 < code <= 128 + signal.SIGTERM else ""
    return f"exit code {code}{killed}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"


def _parted(lines: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """A program's lines, and what its launchers said, a log line or a traceback each."""
    own: list[str] = []
    launcher_s: list[list[str]] = []
    fences = 0  # of torchrun's table that are still to come
    for block in _blocks(lines):
        last = block[-1]
        if fences:
            launcher_s[-1].append(last)
            fences -= bool(_FENCE.match(last))
        elif _ENDED.match(last) or (_CALLED.match(last) and any(map(_IN_LAUNCHER.match, block))):
            launcher_s.append(block)
            fences = 2 * ("ChildFailedError" in last)
        elif len(block) == 1 and _LOGGED.match(last):
            launcher_s.append(block)
        else:
            own += block
    return own, launcher_s


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Each traceback's lines together, whose last one alone is not indented; every other line by itself."""
    block: list[str] = []
    for line in lines:
        if line.startswith(_TRACEBACK):
            if block:
                yield block
            block = [line]
        elif block and line[0].isspace():
            block.append(line)
        else:
            yield [*block, line]
            block = []
    if block:
        yield block


def _codes(launcher_s: Iterable[list[str]]) -> Iterator[int]:
    """What launchers say of the program's exit code, the innermost first."""
    for block in launcher_s:
        told = [match for line in block for match in _CODES.finditer(line)]
        if told:  # torchrun's table has the first rank that failed last
            number = int(told[-1][told[-1].lastindex or 0])
            yield -number if told[-1].lastindex in _SIGNALS else number


def _why(lines: list[str], code: int) -> str:
    """The line that says why, the last one at worst."""
    ours = [line for line in lines if line.startswith("spr: error: ")]
    # Nobody says of himself that he is killed: an exception before that was caught.
    reasons = [] if code < 0 else list(_reasons(lines))
    reasons = [line for line in reasons if not _LEFT_ALONE.match(line)] or reasons
    return next(iter([*ours[-1:], *reasons[-1:], *lines[-1:]]), "it printed nothing")


def _reasons(lines: Iterable[str]) -> Iterator[str]:
    before = ""
    for block in _blocks(lines):
        line = block[-1]
        raised = before[:1].isspace() and _RAISED.fullmatch(line)
        if not line[0].isspace() and (len(block) > 1 or raised or _PARSERS.fullmatch(line)):
            yield line
        before = line
