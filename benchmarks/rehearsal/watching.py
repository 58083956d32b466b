"""A command under watch: memory of its processes, what it writes and says, each with its time; and how that
falls to stages. Linux: peaks are the kernel's own, set back at each look (``clear_refs``).
"""

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from spr_plugin.errors import UserError

BETWEEN = 0.1  # seconds between two looks


@dataclass(frozen=True)
class Look:
    """What was seen at an instant.

    Attributes:
        since, time: seconds since 1970 of the look before, and of this one.
        peak: bytes of resident memory of all processes at most in between, pages of mapped files among them.
        written: bytes that the command has written to its folder so far.
    """

    since: float
    time: float
    peak: int
    written: int


@dataclass
class Watched:
    """A command that has ended: its looks, and its lines with the times at which they came."""

    start: float
    end: float = 0.0
    looks: list[Look] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)

    @property
    def seen(self) -> float:
        """When it was looked at last."""
        return self.looks[-1].time if self.looks else self.start

    def said(self, beginning: str) -> float:
        """When the first line that begins so came. UserError where none did."""
        for moment, line in self.lines:
            if line.startswith(beginning):
                return moment
        raise UserError(f"the command never said {beginning!r}")


@dataclass(frozen=True)
class Limits:
    """Seconds that a command may take, and bytes that it may hold beyond what the system can drop."""

    seconds: float
    bytes: int


def watch(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], out: Path, log: Path, limits: Limits
) -> Watched:
    """Run a command to its end; it writes to `out`, and what it prints goes to `log` too.

    Raises:
        UserError: it ended with another status than 0, or was ended for its limits.
    """
    found, files = Watched(time.time()), Written(out)
    with (
        open(log, "w", encoding="utf-8") as kept,
        subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        reader = threading.Thread(target=_read, args=(process.stdout, kept, found.lines))
        reader.start()
        why, root = None, psutil.Process(process.pid)
        while process.poll() is None:
            peak, held = memory(root)
            found.looks.append(Look(found.seen, time.time(), peak, files.so_far()))
            why = exceeded(limits, held, time.time() - found.start)
            if why:
                for one in [*root.children(recursive=True), root]:
                    one.kill()
                break
            time.sleep(BETWEEN)
        process.wait()
        reader.join()
    found.end = time.time()
    found.looks.append(Look(found.seen, found.end, 0, files.so_far()))
    if why or process.returncode:
        raise UserError(f"{why or f'status {process.returncode}'}: see {log}")
    return found


def _read(stream, kept, lines: list[tuple[float, str]]) -> None:
    for line in stream:
        lines.append((time.time(), line.rstrip("\n")))
        kept.write(line)
        kept.flush()


def exceeded(limits: Limits, held: int, seconds: float) -> str | None:
    if held > limits.bytes:
        return f"more than {limits.bytes / 2**30:.0f} GiB of memory"
    return f"more than {limits.seconds / 60:.0f} minutes" if seconds > limits.seconds else None


def memory(root: psutil.Process) -> tuple[int, int]:
    """Of a process and its children: the peak of their resident memory since the last call, and what they
    hold now that is no page of a file."""
    peak = held = 0
    for one in [root, *_children(root)]:
        try:
            told = _status(one.pid)
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")
        except OSError:  # it has ended
            continue
        peak += told.get("VmHWM", 0)
        held += told.get("RssAnon", 0) + told.get("RssShmem", 0)
    return peak, held


def _children(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _status(process: int) -> dict[str, int]:
    """Bytes by the kernel's names."""
    lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if words[-1] == "kB"}


class Written:
    """How much is written to a folder from now on, also of what is removed again: files by their inodes."""

    def __init__(self, folder: Path):
        self.folder, self.known, self.bytes = folder, {}, 0
        self.so_far()
        self.bytes = 0

    def so_far(self) -> int:
        now: dict[int, int] = {}
        for path in self.folder.rglob("*"):
            try:
                told = path.lstat()
            except OSError:  # it is gone
                continue
            now[told.st_ino] = told.st_size if path.is_file() else 0
        new = sum(max(0, size - self.known.get(inode, 0)) for inode, size in now.items())
        self.bytes, self.known = self.bytes + new, now
        return self.bytes


# --- by stage


def by_stage(watched: Watched, begins: Sequence[tuple[str, float]]) -> dict[str, dict]:
    """Stage → its ``peak_rss``, ``seconds`` and ``bytes``; one that comes again is added up.

    Args:
        begins: (stage, when it begins) in their order; each ends where the next begins.
    """
    found: dict[str, dict] = {}
    ends = [moment for _, moment in begins[1:]] + [watched.end]
    for (stage, begin), end in zip(begins, ends):
        one = found.setdefault(stage, {"peak_rss": 0, "seconds": 0.0, "bytes": 0})
        one["peak_rss"] = max(one["peak_rss"], peak_between(watched.looks, begin, end))
        one["seconds"] += end - begin
        one["bytes"] += written_until(watched.looks, end) - written_until(watched.looks, begin)
    return found


def peak_between(looks: Sequence[Look], begin: float, end: float) -> int:
    """The peak of the looks that lie within; of one that only begins within, where no other does."""
    inside = [look.peak for look in looks if begin <= look.since and look.time <= end]
    return max(inside or [look.peak for look in looks if begin < look.time and look.since < end], default=0)


def written_until(looks: Sequence[Look], moment: float) -> int:
    """Up to the first look at or after the moment: what a stage wrote last is seen behind its end."""
    if moment <= looks[0].since:
        return 0
    return next((look.written for look in looks if look.time >= moment), looks[-1].written)
