"""Crash-safe record logs: append-only JSON lines, one file a rank, keyed by a stable id.

A record is a dict with an ``"id"``. A line without its newline was torn by a crash and is no record: readers pass over it, and the
rank that opens its file again moves it to ``*.torn``. So a process can die at any instant and nothing is lost or doubled.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Iterable, Iterator

from spr_plugin.errors import UserError


class Log:
    """The log of one stage in ``directory``; this process appends to its rank's file and reads all ranks' files."""

    def __init__(self, directory, rank: int = 0):
        self.directory = Path(directory)
        self.path = self.directory / f"rank-{rank:05d}.jsonl"
        self._file = None

    def append(self, *records: dict) -> None:
        """Write records in one system call each batch and flush them to disk."""
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            _set_torn_line_aside(self.path)
            self._file = open(self.path, "ab", buffering=0)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self._file.write(lines.encode())
        os.fsync(self._file.fileno())

    def read(self) -> dict[str, dict]:
        """id → record over all ranks, ordered by id, so that the number of ranks and timing leave no trace."""
        records = {}
        for path in sorted(self.directory.glob("rank-*.jsonl")):
            for record in _records(path):
                records.setdefault(record["id"], record)
        return dict(sorted(records.items()))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _records(path: Path) -> Iterator[dict]:
    """Complete records of one file; a damaged line is named on stderr and left out, so that its stage redoes it."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                record["id"]
            except (ValueError, KeyError, TypeError):
                print(f"spr: {path}:{number} is damaged; its record is made again", file=sys.stderr)
                continue
            yield record


def _set_torn_line_aside(path: Path) -> None:
    """Cut a last line without newline from ``path`` and keep it beside, in ``*.torn``."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        path.with_suffix(".torn").write_bytes(data[whole:])
        with open(path, "r+b") as file:
            file.truncate(whole)


def write_json(path, value) -> None:
    """Replace ``path`` as a whole: readers see the old file or the new one, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str))
    os.replace(draft, path)


def read_json(path):
    """The parsed file, or None where there is none."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else None


def check_manifest(directory, fingerprint: dict, overwrite: bool) -> None:
    """Bind ``directory`` to one configuration: refuse another one by the names of the flags that changed.

    Raises UserError unless ``overwrite`` (``--spr_overwrite``), which deletes what an earlier run left there.
    """
    directory = Path(directory)
    fingerprint = json.loads(json.dumps(fingerprint, default=str))
    if overwrite and directory.exists():
        shutil.rmtree(directory)
    known = read_json(directory / "manifest.json")
    if known is None:
        write_json(directory / "manifest.json", {"config": fingerprint, "versions": _versions()})
        return
    changed = sorted(name for name in fingerprint.keys() | known["config"].keys() if fingerprint.get(name) != known["config"].get(name))
    if changed:
        was = ", ".join(f"--{name} was {known['config'].get(name)}, is {fingerprint.get(name)}" for name in changed)
        raise UserError(f"{directory} holds a run with another configuration ({was}); take another --output_dir or add --spr_overwrite")


def _versions() -> dict[str, str]:
    modules = ("torch", "transformers", "peft", "accelerate", "deepspeed", "trl")
    return {name: sys.modules[name].__version__ for name in modules if hasattr(sys.modules.get(name), "__version__")}


def counted(reasons: Iterable[str]) -> dict[str, int]:
    """Reason → how often, most frequent first."""
    counts = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
