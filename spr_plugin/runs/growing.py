"""A stage's log that may be written while it is looked at: what it holds, and then what came since.

Memory holds keys and places, as :class:`spr_plugin.runs.log.Records` does; texts stay on the disk.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import read_errors, regular
from spr_plugin.runs.log import Log, Record, files_in, record_of

# More than write to one log. A line's offset and its file's number are packed into one whole number, offset
# × RANKS + number, since a run has millions of lines: eight bytes each in an array, not a hundred in a tuple.
RANKS = 1 << 16
SEAL = 16  # bytes at a line's end: its checksum is among them
BLOCK = 1 << 20  # bytes that are searched at once


class Replaced(Exception):
    """What was read before is not there any more: the stage is made again."""


@dataclass
class _File:
    """How far a rank's file was read, and how the last line ended there."""

    path: Path
    end: int = 0
    seal: bytes = b""


class Growing:
    """The records of a log by one of their keys, which several may share.

    Args:
        key: of a record: "id", or "query" where a query has several.

    Attributes:
        damaged: how many lines are no records. One without an end is not counted: it is being written.
    """

    def __init__(self, log: Log, key: str = "id"):
        self._directory, self._key = log.directory, key
        self._key_in = re.compile(rb'"%b": "([^"\\]+)"' % key.encode())
        self._files: list[_File] = []
        self._places: dict[str, array[int]] = {}
        self.damaged = 0

    def more(self) -> Iterator[tuple[str, Record]]:
        """(key, record) of what was appended since this was last asked; the first time of everything.

        Raises:
            Replaced: begin anew.
        """
        known = {file.path for file in self._files}
        with read_errors(self._directory):
            self._files += [_File(path) for path in files_in(self._directory) if path not in known]
            for number, file in enumerate(self._files):
                yield from self._more_of(number, file)

    def _more_of(self, number: int, file: _File) -> Iterator[tuple[str, Record]]:
        try:
            lines = open(file.path, "rb", opener=regular)
        except FileNotFoundError:
            raise Replaced from None
        with lines:
            lines.seek(max(0, file.end - SEAL))
            if lines.read(len(file.seal)) != file.seal:
                raise Replaced
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                offset, file.end, file.seal = file.end, file.end + len(line), (file.seal + line)[-SEAL:]
                try:
                    record = record_of(line)
                    key = str(record[self._key])
                except (ValueError, KeyError):
                    self.damaged += not line.isspace()
                    continue
                self._places.setdefault(key, array("q")).append(offset * RANKS + number)
                yield key, record

    def __getitem__(self, key: str) -> list[Record]:
        """The records of a key, the first of each id. UserError where the log was changed since."""
        records: dict[str, Record] = {}
        for packed in self._places.get(key, ()):
            offset, number = divmod(packed, RANKS)
            path = self._files[number].path
            try:
                with open(path, "rb", opener=regular) as lines:
                    lines.seek(offset)
                    record = record_of(lines.readline())
                if str(record[self._key]) != key:
                    raise ValueError("another one's")
            except (OSError, ValueError, KeyError):
                raise UserError(f"{path} was changed while it was read: look again") from None
            records.setdefault(record["id"], record)
        return list(records.values())

    def found(self, text: str, known: Collection[str] = ()) -> set[str]:
        """Keys of the records of which a value holds `text`, in upper or lower case, as far as the log was
        read; and those that are `known`, which are not looked at again.
        """
        wanted, keys = text.lower(), set(known)
        for line in self._lines_with(wanted):
            # One of a query's records is enough; to parse all of them would take most of the time.
            if (key := self._key_in.search(line)) and key[1].decode() in keys:
                continue
            try:
                record = record_of(line)
                if any(wanted in value.lower() for value in _texts(record)):
                    keys.add(str(record[self._key]))
            except (ValueError, KeyError):
                continue
        return keys

    def _lines_with(self, wanted: str) -> Iterator[bytes]:
        """The lines in which a text in lower case may stand, as JSON writes it."""
        ways = {json.dumps(wanted, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
        with read_errors(self._directory):
            for file in self._files:
                with open(file.path, "rb", opener=regular) as lines:
                    while block := lines.read(BLOCK):
                        yield from _with(block + lines.readline(), ways)


def _with(block: bytes, ways: Collection[str]) -> Iterator[bytes]:
    """Those of the lines that hold one of the texts."""
    if not all(map(str.isascii, ways)):  # its capitals may be of other lengths
        for line in block.splitlines(keepends=True):
            if any(way in line.decode("utf-8", "replace").lower() for way in ways):
                yield line
        return
    ((wanted, lower),) = ((way.encode(), block.lower()) for way in ways)  # which are one then
    offset = lower.find(wanted)
    while offset >= 0:  # a line at a time would take three times as long
        end = lower.find(b"\n", offset) + 1 or len(block)
        yield block[lower.rfind(b"\n", 0, offset) + 1 : end]
        offset = lower.find(wanted, end)


def _texts(record: Record) -> Iterator[str]:
    """All texts in plain data, but not the names of its fields."""
    left: list[object] = [record]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
