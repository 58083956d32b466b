"""The one way to write files: whole or not at all, and a full disk is a line; and to read those of a folder
that others may have made. Standard library only.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from spr_plugin.errors import UserError
from spr_plugin.progress import say

AnyPath = str | os.PathLike[str]
SAMPLED_BLOCKS, BLOCK = 64, 1 << 16


@contextlib.contextmanager
def disk_errors(path: AnyPath) -> Iterator[None]:
    """A full or read-only disk is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; what was written before is safe: mend it and run the same command"
            " again"
        ) from None


@contextlib.contextmanager
def read_errors(path: AnyPath) -> Iterator[None]:
    """A file or folder that cannot be read is the user's to mend: by its own name, where the error has one,
    since `path` may be a whole folder's."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"{_closed(error.filename or path)} may not be read ({error.strerror}): run this as a user who"
            " may, or have its owner allow it"
        ) from None
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be read ({error.strerror}): mend it and run the same command"
            " again; what was written is safe"
        ) from None


def regular(path: str, flags: int) -> int:
    """The opener of regular files: a FIFO or a device neither blocks nor is read. OSError for those."""
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return handle


def _closed(path: AnyPath) -> AnyPath:
    """The first of the folders on a path's way that may not be gone into, or the path itself."""
    while True:
        try:
            os.lstat(path)
        except PermissionError:
            path = os.path.dirname(path) or os.curdir
        except OSError:  # gone since
            return path
        else:
            return path


class Damaged(UserError):
    """A file was read, and is not what it should be."""


@contextlib.contextmanager
def draft(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once it is whole and on the disk. Its name is its own: other
    machines write to one folder, and process ids are alike in two containers."""
    own = draft_of(path)
    try:
        with open(own, "wb") as file:
            yield file
        put(own, path)
    finally:
        own.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """The name of a draft, for whoever writes one by its name."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def put(own: Path, path: Path) -> None:
    """Have a draft that is whole take the place of ``path``, once it is on the disk."""
    with open(own, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(own, path)


def write_text(path: AnyPath, text: str) -> None:
    """Replace ``path`` as a whole: readers see the old file or the new one, never half, and a link's target
    is left alone."""
    write_lines(path, [text])


def write_lines(path: AnyPath, lines: Iterable[str]) -> None:
    """:func:`write_text` of lines that need not fit in memory."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft(path) as file:
            file.writelines(line.encode() for line in lines)


def write_json_lines(path: AnyPath, rows: Iterable[object]) -> None:
    """:func:`write_lines` of plain data, a row a line."""
    write_lines(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json(path: AnyPath, value: object) -> None:
    """:func:`write_text` of plain data."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str))


def read_json(path: AnyPath) -> Any:
    """The parsed file, or None where there is none. Damaged where it is no JSON, UserError where it cannot be
    read."""
    with read_errors(path):
        try:
            with open(path, "rb", opener=regular) as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise Damaged(
            f"{path} is damaged ({why}): restore it, or remove it and run the same command again"
        ) from None


def remove(path: AnyPath) -> None:
    """Delete whatever lies there, if anything: a file, a folder with all that is in it, a link, but never
    what that points to. UserError where it cannot be deleted."""
    path = Path(path)
    with disk_errors(path):
        if path.is_symlink():
            path.unlink()
            say(f"{path} was a link and is gone; what it pointed to stays")
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def content(path: AnyPath) -> dict[str, Any]:
    """``{"size", "hash"}`` of a file: all of a small one, 64 blocks spread evenly over one of more than 4
    MiB.
    """
    size = os.path.getsize(path)
    hash = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as file:
        if size <= SAMPLED_BLOCKS * BLOCK:
            hash.update(file.read())
        for index in range(SAMPLED_BLOCKS if size > SAMPLED_BLOCKS * BLOCK else 0):
            file.seek((size - BLOCK) * index // (SAMPLED_BLOCKS - 1))
            hash.update(file.read(BLOCK))
    return {"size": size, "hash": hash.hexdigest()}
