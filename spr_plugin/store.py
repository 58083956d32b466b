"""Crash-safe record logs: append-only JSON lines, one file a rank, keyed by a stable id.

A record is a dict with an ``"id"``. A line that was torn by a crash or damaged since is no record: it is named and passed over, and moved to
``*.damaged`` before a stage goes on. So a process can die at any instant, and nothing is lost or doubled.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
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


def write_text(path, text: str) -> None:
    """Replace ``path`` as a whole: readers see the old file or the new one, never half, and a link's target
    is left alone."""
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path) as file:
            file.write(text.encode())


def write_lines(path, lines: Iterable[str]) -> None:
    """:func:`write_text` of lines that need not fit in memory."""
    path = Path(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path) as file:
            file.writelines(line.encode() for line in lines)


def write_json(path, value) -> None:
    """:func:`write_text` of plain data."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str))


def read_json(path):
    """The parsed file, or None where there is none."""
    path = Path(path)
    return json.loads(path.read_text()) if path.exists() else None


# --- one run on one directory, with one configuration

LOCK, MANIFEST = "lock", "manifest.json"
MANIFEST_KEYS = {"hash", "config", "inputs", "versions"}  # of ours; other tools write files of that name too
# What a run of ours writes to its folder: nothing else is ever deleted there.
STAGES = frozenset(
    "entry base regions batches candidates scores pairs bad_pairs lengths reference dpo policy round".split()
)
PARTS = STAGES | {"training.json", "exit.json", "failed.json", "report.html", "ranks", LOCK, MANIFEST}
SHOWN = 8  # names in a line


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
        UserError: flags or contents of files differ from those of the run that wrote there; there is
            something to delete, or a manifest, that no run of ours made.
    """
    directory = Path(directory)
    known = read_manifest(directory)
    if overwrite:
        _start_over(directory, known)
        known = None
    config = json.loads(json.dumps(config, default=str))
    contents = {flag: {"path": path, **content(path)} for flag, path in inputs.items() if os.path.isfile(path)}
    if known is None:
        before = [] if overwrite else [name for name in _names(directory) if _part(name) in STAGES]
        found = {"hash": digest(config), "seed": config.get("spr_seed"), "config": config, "inputs": contents}
        write_json(directory / MANIFEST, {**found, "versions": _versions(), "before": before})
        return
    allowed = {name: value for name, value in config.items() if name in may_change}
    if any(known["config"].get(name) != value for name, value in allowed.items()):
        known["config"] |= allowed
        write_json(directory / MANIFEST, known)
    changed = sorted(name for name in config.keys() | known["config"].keys() if config.get(name) != known["config"].get(name))
    named = {name: "box text" if name == "box" else f"--{name}" for name in changed}  # no flag of that name
    was = [f"{named[name]} was {known['config'].get(name)}, is {config.get(name)}" for name in changed]
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


def read_manifest(directory) -> dict | None:
    """The manifest that a run of ours wrote to ``directory``, None where there is none. UserError where it is
    something else's."""
    path = Path(directory) / MANIFEST
    with _disk_errors(path):
        try:
            manifest = read_json(path)
        except (ValueError, RecursionError, IsADirectoryError):
            manifest = "not JSON"
    sound = isinstance(manifest, dict) and MANIFEST_KEYS <= manifest.keys()
    if manifest is None or sound and isinstance(manifest["config"], dict) and isinstance(manifest["inputs"], dict):
        return manifest
    raise UserError(f"{path} was written by no run of ours: move it away, or name another folder")


def is_run(directory) -> bool:
    """Whether a manifest proves that a run of ours wrote to ``directory``."""
    with contextlib.suppress(UserError):
        return read_manifest(directory) is not None
    return False


# --- starting over


def remove(path) -> None:
    """Delete whatever lies there, if anything: a file, a folder with all that is in it, a link, but never
    what that points to. UserError where it cannot be deleted."""
    path = Path(path)
    with _disk_errors(path):
        if path.is_symlink():
            path.unlink()
            say(f"{path} was a link and is gone; what it pointed to stays")
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def delete_run(folder: Path, parts: Set[str] = PARTS) -> list[Path]:
    """Delete these parts of a run of ours in ``folder``, later rounds as folders of their own.

    A manifest goes last: it proves the rest to be ours when the same command is given again.

    Returns:
        what stays because no run of ours made it.
    """
    stays = []
    for entry in sorted(folder.iterdir(), key=lambda entry: (entry.name == MANIFEST, entry.name)):
        part = _part(entry.name)
        if part not in PARTS:
            stays.append(entry)
        elif part == "round" and part in parts and entry.is_dir() and not entry.is_symlink():
            stays += delete_run(entry) if is_run(entry) else [entry]
            if not any(entry.iterdir()):
                remove(entry)
        elif part in parts or entry.suffix == ".tmp":
            remove(entry)
    return stays


def _start_over(directory: Path, known: dict | None) -> None:
    """``--spr_overwrite``: leave nothing of the run whose manifest is ``known``, but for that, which is to be
    replaced."""
    without = [name for name in _names(directory) if _part(name) not in (LOCK, MANIFEST, "ranks")]
    foreign = known.get("before", []) if known else without
    if foreign:
        raise UserError(
            f"--spr_overwrite: no {MANIFEST} proves that a run of ours made {_some(foreign)} in {directory}: "
            "move it away, or name another folder"
        )
    if known and (stays := delete_run(directory, PARTS - {LOCK, MANIFEST})):
        names = _some([str(path.relative_to(directory)) for path in stays])
        say(f"--spr_overwrite: {names} in {directory} was made by no run of ours and stays")


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _part(name: str) -> str:
    """The part of a run that a file or folder of this name is: a draft is of what it would become, every
    later round is a "round", and what is left of ranks that met is "ranks"."""
    return re.sub(r"(\.\d+)?\.tmp$|(?<=^round)-\d+$|(?<=^ranks)-[0-9a-f]{16}$", "", name)


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


OWNER, LONGEST_OWNER = "process ", 400  # how the text in a lock begins, and bytes of it that are read
_locks = {}


def lock(directory, folder_flag: str = "--output_dir") -> None:
    """Keep other runs out of ``directory`` until this process ends, however it ends. UserError names the process that has it.

    The kernel lets go of the lock when its process dies, so a lock file alone means nothing: a run that was killed is recognised.
    """
    import atexit
    import fcntl

    path = Path(os.path.realpath(directory)) / LOCK
    if path in _locks:
        return
    file = _lock_file(path)
    owner = file.read(LONGEST_OWNER).decode(errors="replace")
    if not owner.startswith(OWNER[: len(owner)]):
        raise UserError(f"{path} is no lock of a run of ours: move it away")
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
    file.seek(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"{OWNER}{os.getpid()} on {socket.gethostname()} since {since}".encode())
    _locks[path] = file
    atexit.register(file.truncate, 0)


def _lock_file(path: Path):
    """The lock file, open and unbuffered. UserError where something else has its place, which is neither
    followed nor waited for."""
    follow_nothing = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists() and not path.is_file():
            raise UserError(f"{path} is no file, as a run's lock is: move it away")
        return open(path, "r+b", buffering=0, opener=lambda name, _: os.open(name, follow_nothing, 0o666))


def _versions() -> dict[str, str]:
    modules = ("torch", "transformers", "peft", "accelerate", "deepspeed", "trl")
    return {name: sys.modules[name].__version__ for name in modules if hasattr(sys.modules.get(name), "__version__")}


def counted(reasons: Iterable[str]) -> dict[str, int]:
    """Reason → how often, most frequent first."""
    counts = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def listed(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, for a line."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())
