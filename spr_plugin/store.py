"""Crash-safe record logs: append-only JSON lines, one file a rank, keyed by a stable id.

A record is a dict with an ``"id"``. A line that was torn by a crash or damaged since is no record: it is named and passed over, and moved to
``*.damaged`` before a stage goes on. So a process can die at any instant, and nothing is lost or doubled.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path

from spr_plugin.config import DPO_FLAGS, digest
from spr_plugin.errors import UserError
from spr_plugin.progress import say

SYNC_SECONDS = 5.0  # what a power failure can cost; a process that dies costs nothing that was appended
SAMPLED_BLOCKS, BLOCK = 64, 1 << 16
_scan = json.JSONDecoder().scan_once
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Log:
    """The log of one stage in ``directory``; this process appends to its rank's file and reads all ranks' files."""

    def __init__(self, directory, rank: int = 0):
        self.directory = Path(directory)
        self.path = self.directory / f"rank-{rank:05d}.jsonl"
        self._file = None

    def append(self, *records: dict) -> None:
        """Write records, whole or not at all. UserError where the disk is full or read-only."""
        data = "".join(_encode(record) + "\n" for record in records).encode()
        with _disk_errors(self.path):
            self._open()
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(self._size)
                raise
            self._size += len(data)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()

    def _open(self) -> None:
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            if _is_torn(self.path):
                self.held()
            self._file = open(self.path, "ab", buffering=0)
            self._size, self._synced = self._file.tell(), time.monotonic()

    def sync(self) -> None:
        """Have the disk take what was appended."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def write(self, records: Iterable[dict]) -> None:
        """Make this rank's file anew, as a whole: it holds all records or does not exist."""
        self.close()
        with _disk_errors(self.path):
            self.directory.mkdir(parents=True, exist_ok=True)
            with _draft(self.path) as file:
                file.writelines((_encode(record) + "\n").encode() for record in records)

    def read(self) -> "Records":
        """id → record over all ranks, ordered by id, so that the number of ranks and timing leave no trace."""
        return Records(self._files())

    def held(self) -> set[str]:
        """Ids of all records, after damaged lines were set aside. For one rank, while no rank appends."""
        records = self.read()
        for path, lines in records.damaged.items():
            _set_aside(path, lines)
        return set(records)

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("rank-*.jsonl"))

    def close(self) -> None:
        if self._file is not None:
            with _disk_errors(self.path):
                self.sync()
            self._file.close()
            self._file = None


class Records(Mapping):
    """Records of a stage, read from disk one at a time; memory holds their ids and places.

    Attributes:
        damaged: file → numbers (from 1) of its lines that are no records.
    """

    def __init__(self, paths: list[Path]):
        self._paths, self._files, self.damaged = paths, {}, {}
        places = {}
        for number, path in enumerate(paths):
            for offset, id in self._scanned(path):
                places.setdefault(id, offset * len(paths) + number)
        self._places = {id: places[id] for id in sorted(places)}

    def _scanned(self, path: Path) -> Iterator[tuple[int, str]]:
        """(offset, id) of each sound line; the first of two records with one id counts."""
        offset = 0
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    text = line.decode()
                    record, end = _scan(text, 0)
                    if text[end:] != "\n":
                        raise ValueError("torn, or more than a record")
                    yield offset, record["id"]
                except (ValueError, KeyError, TypeError, StopIteration):
                    self.damaged.setdefault(path, set()).add(number)
                    say(f"{path}:{number} is damaged; its record is made again")
                offset += len(line)

    def __getitem__(self, id: str) -> dict:
        offset, number = divmod(self._places[id], len(self._paths))
        if number not in self._files:
            self._files[number] = open(self._paths[number], "rb")
        self._files[number].seek(offset)
        return json.loads(self._files[number].readline())

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id) -> bool:
        return id in self._places


def _is_torn(path: Path) -> bool:
    """Whether the last line lacks its newline."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _set_aside(path: Path, numbers: set[int]) -> None:
    """Move the lines with these numbers to ``*.damaged``."""
    with open(path, "rb") as lines, open(path.with_suffix(".damaged"), "ab") as aside, _draft(path) as kept:
        for number, line in enumerate(lines, 1):
            (aside if number in numbers else kept).write(line)


@contextlib.contextmanager
def _draft(path: Path):
    """A file that takes the place of ``path`` when it is whole."""
    draft = path.with_name(path.name + f".{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors(path: Path):
    """A full or read-only disk is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; what was written before is safe: mend it and run the same command again") from None


def write_json(path, value) -> None:
    """Replace ``path`` as a whole: readers see the old file or the new one, never half."""
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path) as file:
            file.write(json.dumps(value, indent=1, ensure_ascii=False, default=str).encode())


def read_json(path):
    """The parsed file, or None where there is none."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else None


# --- one run on one directory, with one configuration


def check_manifest(
    directory,
    config: dict,
    overwrite: bool,
    inputs: Mapping[str, str] = {},
    may_change: Set[str] = frozenset(),
    folder_flag: str = "--output_dir",
) -> None:
    """Bind ``directory`` to one configuration: refuse another one by the names of the flags that changed.

    Args:
        config: flag → value.
        overwrite: ``--spr_overwrite``: delete what an earlier run left there.
        inputs: flag → path of a file whose content matters; what is no file is left out.
        may_change: flags that may differ from the run before (``--spr_restart_dpo``).
        folder_flag: what the command names the folder by; one with another than ``--output_dir`` has no flag
        to start over with.

    Raises:
        UserError: flags or contents of files differ from those of the run that wrote there.
    """
    directory = Path(directory)
    if overwrite and directory.exists():
        for entry in directory.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    config = json.loads(json.dumps(config, default=str))
    contents = {flag: {"path": path, **content(path)} for flag, path in inputs.items() if os.path.isfile(path)}
    known = read_json(directory / "manifest.json")
    if known is not None:
        allowed = {name: value for name, value in config.items() if name in may_change}
        if any(known["config"].get(name) != value for name, value in allowed.items()):
            known["config"] |= allowed
            write_json(directory / "manifest.json", known)
    if known is None:
        found = {"hash": digest(config), "seed": config.get("spr_seed"), "config": config, "inputs": contents, "versions": _versions()}
        write_json(directory / "manifest.json", found)
        return
    changed = sorted(name for name in config.keys() | known["config"].keys() if config.get(name) != known["config"].get(name))
    was = [f"--{name} was {known['config'].get(name)}, is {config.get(name)}" for name in changed]
    for flag in contents.keys() & known["inputs"].keys():
        if contents[flag]["hash"] != known["inputs"][flag]["hash"]:
            was.append(f"--{flag} {contents[flag]['path']} has another content")
    if was:
        restart = (
            "--spr_restart_dpo, which keeps all but the DPO stage, or "
            if len(was) == len(changed) and DPO_FLAGS.issuperset(changed)
            else ""
        )
        again = f" or add {restart}--spr_overwrite" if folder_flag == "--output_dir" else ""
        raise UserError(
            f"{directory} holds a run with another configuration ({', '.join(was)}); take another "
            f"{folder_flag}{again}"
        )


def content(path) -> dict:
    """``{"size", "hash"}`` of a file: all of a small one, 64 blocks spread evenly over one of more than 4 MiB."""
    size = os.path.getsize(path)
    hash = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as file:
        if size <= SAMPLED_BLOCKS * BLOCK:
            hash.update(file.read())
        for place in range(SAMPLED_BLOCKS if size > SAMPLED_BLOCKS * BLOCK else 0):
            file.seek((size - BLOCK) * place // (SAMPLED_BLOCKS - 1))
            hash.update(file.read(BLOCK))
    return {"size": size, "hash": hash.hexdigest()}


LOCK = "lock"
_locks = {}


def lock(directory, folder_flag: str = "--output_dir") -> None:
    """Keep other runs out of ``directory`` until this process ends, however it ends. UserError names the process that has it.

    The kernel lets go of the lock when its process dies, so a lock file alone means nothing: a run that was killed is recognised.
    """
    import atexit
    import fcntl

    path = Path(directory).resolve() / LOCK
    if path in _locks:
        return
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    file.seek(0)
    owner = file.read()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{directory} is in use by {owner or 'another process'}; wait for it, or take another "
            f"{folder_flag}"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        say(f"{directory}: this file system has no locks; see that only one run uses the folder")
    if owner:
        say(f"{directory}: {owner} ended without notice; going on from what it left")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    _locks[path] = file
    atexit.register(file.truncate, 0)


def _versions() -> dict[str, str]:
    modules = ("torch", "transformers", "peft", "accelerate", "deepspeed", "trl")
    return {name: sys.modules[name].__version__ for name in modules if hasattr(sys.modules.get(name), "__version__")}


def counted(reasons: Iterable[str]) -> dict[str, int]:
    """Reason → how often, most frequent first."""
    counts = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
