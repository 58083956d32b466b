"""Crash-safe record logs: append-only JSON lines, one file a rank, keyed by a stable id.

A record is a dict with an ``"id"``; its line ends with a checksum of all before it. A line that was torn by a
crash or damaged since is no record: it is named and passed over, and moved to ``*.damaged`` before a stage
goes on. So a process can die at any instant, and nothing is lost, doubled or believed that was not written.
"""

import json
import os
import re
import time
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, disk_errors, draft, read_errors, regular, write_json
from spr_plugin.progress import counted, say

SYNC_SECONDS = 5.0  # what a power failure can cost; a process that dies costs nothing that was appended
BEGUN = "begun.json"  # beside the records: how it was when a process last went on with them
CHECKSUM = "crc"  # the last key of a line: what zlib says of the bytes before the comma
Record = dict[str, Any]  # plain data with an "id"
_scan: Callable[[str, int], tuple[Record, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_ascii = json.JSONEncoder().encode
_OF_A_RANK = re.compile(r"rank-\d+\.jsonl")
_MIDDLE, _END = f', "{CHECKSUM}": "'.encode(), b'"}\n'
_SEALED = re.compile(_MIDDLE + rb'[0-9a-f]{8}"\}\r?\n')
_SUFFIX = len(_MIDDLE) + 8 + len(_END)


def line_of(record: Record) -> bytes:
    """A record as its line."""
    try:
        body = _encode(record)[:-1].encode()
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold, but an escape can
        body = _encode_ascii(record)[:-1].encode()
    return b"%b%b%08x%b" % (body, _MIDDLE, zlib.crc32(body), _END)


def record_of(line: bytes) -> Record:
    """The record of a line. ValueError where it is not one that :func:`line_of` made, which editors and other
    systems may have given a byte-order mark and their own line end."""
    line = line.removeprefix(BOM_UTF8).replace(b"\r\n", b"\n")
    body = memoryview(line)[:-_SUFFIX]
    if line[-_SUFFIX:] != b"%b%08x%b" % (_MIDDLE, zlib.crc32(body), _END):
        raise ValueError("torn or damaged")
    try:
        record, _ = _scan(line[:-_SUFFIX].decode() + "}", 0)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return record


_WORD = re.compile(r'"(\w+)": "([^"\\]+)"')  # in JSON: a key and its text, if nothing in it is escaped


class Log:
    """The log of one stage in ``directory``; this process appends to its rank's file and reads all ranks'
    files.
    """

    def __init__(self, directory: AnyPath, rank: int = 0):
        self.directory = Path(directory)
        self.path = self.directory / f"rank-{rank:05d}.jsonl"
        self._file: FileIO | None = None

    def append(self, *records: Record) -> None:
        """Write records, whole or not at all. UserError where the disk is full or read-only."""
        data = b"".join(map(line_of, records))
        with disk_errors(self.path):
            file = self._open()
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(self._size)
                raise
            self._size += len(data)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()

    def _open(self) -> FileIO:
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            if _is_torn(self.path):
                self.held()
            self._file = open(self.path, "ab", buffering=0)
            self._size, self._synced = self._file.tell(), time.monotonic()
        return self._file

    def sync(self) -> None:
        """Have the disk take what was appended."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def write(self, records: Iterable[Record]) -> None:
        """Make this rank's file anew, as a whole: it holds all records or does not exist."""
        self.close()
        with disk_errors(self.path):
            self.directory.mkdir(parents=True, exist_ok=True)
            with draft(self.path) as file:
                file.writelines(map(line_of, records))

    def read(self) -> "Records":
        """id → record over all ranks, ordered by id, so that the number of ranks and timing leave no
        trace.
        """
        with read_errors(self.directory):
            return Records(files_in(self.directory))

    def words(self, key: str) -> dict[str, int]:
        """How often each word stands under ``key`` in all records, most frequent first. It is looked for in
        their lines, in which the quotes of a text are escaped ones."""
        counts = Counter[str]()
        with read_errors(self.directory):
            for path in files_in(self.directory):
                with open(path, encoding="utf-8", errors="replace", opener=regular) as lines:
                    for line in lines:
                        counts.update(word for name, word in _WORD.findall(line) if name == key)
        return counted(counts.elements())

    def held(self) -> set[str]:
        """Ids of all records, after damaged lines were set aside. For one rank, while no rank appends."""
        records = self.read()
        for path, numbers in records.damaged.items():
            for number in sorted(numbers):
                say(f"{path}:{number} is damaged; its record is made again")
            _set_aside(path, numbers)
        return set(records)

    def resume(self, wanted: Set[str]) -> set[str]:
        """What :meth:`Log.held` gives; where some of the ``wanted`` ids are missing, what there is to do is
        noted first, for whoever asks how fast it goes."""
        logged = self.held()
        there = len(wanted & logged)
        if there < len(wanted):
            note_begin(self.directory, len(wanted), there)
        return logged

    def close(self) -> None:
        if self._file is not None:
            with disk_errors(self.path):
                self.sync()
            self._file.close()
            self._file = None


class Records(Mapping[str, Record]):
    """Records of a stage, read from disk one at a time; memory holds their ids and places.

    Attributes:
        damaged: file → numbers (from 1) of its lines that are no records.
    """

    def __init__(self, paths: list[Path]):
        self._paths = paths
        self._files: dict[int, BinaryIO] = {}
        self.damaged: dict[Path, set[int]] = {}
        places: dict[str, int] = {}
        for number, path in enumerate(paths):
            for offset, id in self._scanned(path):
                # Offset and file in one whole number: a third of a pair's memory, by the million.
                places.setdefault(id, offset * len(paths) + number)
        self._places = {id: places[id] for id in sorted(places)}

    def _scanned(self, path: Path) -> Iterator[tuple[int, str]]:
        """(offset, id) of each sound line; the first of two records with one id counts."""
        offset = 0
        with open(path, "rb", opener=regular) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield offset, record_of(line)["id"]
                except ValueError:
                    if not line.isspace():
                        self.damaged.setdefault(path, set()).add(number)
                offset += len(line)

    def __getitem__(self, id: str) -> Record:
        offset, number = divmod(self._places[id], len(self._paths))
        if number not in self._files:
            self._files[number] = open(self._paths[number], "rb", opener=regular)
        self._files[number].seek(offset)
        try:
            return record_of(self._files[number].readline())
        except ValueError:
            raise UserError(
                f"{self._paths[number]} was changed while it was read: run the same command again"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: object) -> bool:
        return id in self._places


def note_begin(directory: Path, total: int, done: int) -> None:
    """Note that ``total`` records are wanted in ``directory`` from now on, of which ``done`` are there."""
    write_json(
        directory / BEGUN, {"time": time.time(), "total": total, "held": done, "lines": lines_in(directory)}
    )


def lines_in(directory: Path) -> dict[str, int]:
    """File of a rank → how many records it holds."""
    return {name: records for name, (records, _) in counts_in(directory).items()}


def counts_in(directory: Path) -> dict[str, tuple[int, int]]:
    """File of a rank → how many records it holds, told by how their lines end, and how many lines that are
    none. A last line without an end is neither: it is being written."""
    counts = {}
    for path in files_in(directory):
        records = others = 0
        with open(path, "rb", opener=regular) as file:
            while block := file.read(1 << 20) + file.readline():
                sealed, ended = len(_SEALED.findall(block)), block.count(b"\n")
                records += sealed
                if ended > sealed:
                    others += ended - sealed - sum(map(_is_blank, block.split(b"\n")[:-1]))
        counts[path.name] = records, others
    return counts


def _is_blank(line: bytes) -> bool:
    return not line.strip()


def files_in(directory: Path) -> list[Path]:
    """The files of all ranks in the order of their ranks; none where there is no such folder. OSError for one
    that may not be read, which to a glob would be empty."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(directory / name for name in names if _OF_A_RANK.fullmatch(name))


def _is_torn(path: Path) -> bool:
    """Whether the last line lacks its newline."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _set_aside(path: Path, numbers: set[int]) -> None:
    """Move the lines with these numbers to ``*.damaged``."""
    with open(path, "rb") as lines, open(path.with_suffix(".damaged"), "ab") as aside, draft(path) as kept:
        for number, line in enumerate(lines, 1):
            (aside if number in numbers else kept).write(line)
