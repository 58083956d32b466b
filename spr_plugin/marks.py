"""Pairs that somebody marked as bad: ``OUTPUT_DIR/spr-marks.jsonl``, beside the run, whose own files stay as
they are.

A line is ``{"pair": ID, "note": TEXT}``. Of several about one pair the last counts; a note of null takes the
mark back.
"""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, disk_errors, read_errors
from spr_plugin.progress import say

NAME = "spr-marks.jsonl"
Marks = dict[str, str]  # id of a marked pair → the note about it, which may be empty


def beside(run_folder: AnyPath) -> Path:
    """The file of marks about the run in ``OUTPUT_DIR/spr``."""
    return Path(run_folder).absolute().parent / NAME


def marks_at(path: Path) -> Marks:
    """Those of :func:`beside`; none where nobody has marked anything."""
    return read_marks(path) if path.is_file() else {}


def read_marks(path: AnyPath, named_by: str = "") -> Marks:
    """The pairs that are marked. A line says so where a file that a flag names marks none.

    Args:
        named_by: the flag that names the file, for the line.

    Raises:
        UserError: there is no such file, it cannot be read, or a line of it is no mark.
    """
    where = f"{named_by} {path}".strip()
    marks: Marks = {}
    try:
        lines = Path(path).read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        if named_by:
            raise UserError(f"{where}: {error.strerror}; name a file of `spr inspect`'s marks") from None
        with read_errors(path):
            raise
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pair, note = _mark_of(line, f"{where}:{number}")
        marks.pop(pair, None)
        if note is not None:
            marks[pair] = note
    if named_by and not marks:
        why = "holds marks that were all taken back" if any(map(bytes.strip, lines)) else "is empty"
        say(f"{where}: {why}; no pair is left out by it")
    return marks


def _mark_of(line: bytes, where: str) -> tuple[str, str | None]:
    try:
        mark = json.loads(line)
        pair, note = mark["pair"], mark.get("note", "")
        if not (isinstance(pair, str) and pair and isinstance(note, (str, type(None)))):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(
            f'{where}: is no mark; a line is {{"pair": "ID", "note": "TEXT"}}: mend or remove it'
        ) from None
    return pair, note


def mark(path: AnyPath, pair: str, note: str | None) -> None:
    """Mark a pair, or with None take its mark back.

    Raises:
        UserError: the file cannot be written to, or holds what is no mark, for which no mark in it would be
            read; a link is not followed, since whoever sent the folder may have made it.
    """
    data = json.dumps({"pair": pair, "note": note}).encode() + b"\n"
    follow_nothing = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isfile(path)):
        raise UserError(f"{path} is no plain file, as marks are kept in: move it away")
    try:
        marks_at(Path(path))
    except UserError as error:
        raise UserError(f"not marked: {error}") from None
    with (
        disk_errors(path),
        open(path, "a+b", buffering=0, opener=lambda name, _: os.open(name, follow_nothing, 0o666)) as file,
    ):
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            data = (b"" if file.read(1) == b"\n" else b"\n") + data  # behind a line without an end
        file.write(data)
