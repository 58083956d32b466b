"""What a command of ``spr`` is about to write, looked at before it computes: can it be, and is it an
input? And whether a folder is named at all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, draft_of


def refuse_unnamed(name: str, path: AnyPath) -> None:
    """UserError for an empty name of a folder, as an unset variable of a shell gives: it would be taken for
    the current folder."""
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"{name}: {path!r} is no path")
    if not str(path).strip():
        raise UserError(f"{name}: is empty; name a folder, or . for the current one")


def refuse_unwritable(outputs: Mapping[str, str], folders: bool = False) -> None:
    """UserError for the first path (by its flag) that cannot become a file, or with `folders` a folder."""
    for flag, path in outputs.items():
        if not str(path).strip():
            raise UserError(f"{flag}: is empty; name a {'folder' if folders else 'file'}")
        kind = "folder" if folders else "file"
        there, right = (os.path.lexists, os.path.isdir) if folders else (os.path.exists, os.path.isfile)
        if there(path) and not right(path):
            raise UserError(f"{flag} {path}: is there already, and is no {kind}")
        holder = _nearest(path if folders else os.path.dirname(os.path.abspath(path)))
        if not os.path.isdir(holder):
            raise UserError(f"{flag} {path}: {holder} is no folder")
        if not os.access(holder, os.W_OK | os.X_OK) or not _takes_files(holder):
            raise UserError(f"{flag} {path}: {holder} cannot be written to")
        if why := _no_name(path):
            raise UserError(f"{flag} {path}: {why}; take another name")


def refuse_overwriting(outputs: Mapping[str, str], inputs: Iterable[tuple[str, str]]) -> None:
    """UserError where an output is a file that the command reads, by whatever name, or another output.

    Args:
        outputs: flag → path of a file.
        inputs: (what names it, path of a file, or of a folder all of which is read).
    """
    known: dict[tuple[int, int] | str, str] = {}
    for flag, path in outputs.items():
        if (other := known.setdefault(_identity(path), flag)) != flag:
            raise UserError(f"{flag} {path}: {other} names the same file; take another one")
    there = {flag: path for flag, path in outputs.items() if os.path.exists(path)}
    for named_by, source in inputs:
        for flag, path in there.items():
            if _identity(path) == _identity(source) or (os.path.isdir(source) and _within(path, source)):
                raise UserError(f"{flag} {path}: is read as {named_by}, and would be lost; take another file")


def refuse_within(folder: str, files: Iterable[tuple[str, str]]) -> None:
    """UserError for the first file (flag, path) in a folder that is the command's own, and goes with its
    end.
    """
    for flag, path in files:
        if _within(path, folder):
            raise UserError(
                f"{flag} {path}: lies in {folder}, which this command makes and deletes; take another place"
            )


def _identity(path: str) -> tuple[int, int] | str:
    """Equal for all names of one file, links included."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _within(path: str, folder: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _takes_files(folder: str) -> bool:
    """Whether a file can be made there. Where rights are no matter, as root's in /proc, nothing else says."""
    try:
        with tempfile.TemporaryFile(dir=folder):  # without a name, where the system can
            return True
    except OSError:
        return False


def _no_name(path: str) -> str:
    """Why nothing can have this name, nor its draft; "" where it can."""
    try:
        os.lstat(draft_of(Path(os.path.abspath(path))))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _nearest(path: str) -> str:
    """`path`, or the nearest of the folders around it that is there."""
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
