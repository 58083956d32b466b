"""One run at a time in a folder."""

import contextlib
import errno
import os
import socket
import time
from io import FileIO
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, disk_errors
from spr_plugin.progress import say

NAME = "lock"
OWNER, LONGEST_OWNER = "process ", 400  # how the text in a lock begins, and bytes of it that are read
MOMENT = 0.5  # seconds, much more than a look at a lock takes
_locks: dict[Path, FileIO] = {}


def lock(directory: AnyPath, folder_flag: str = "--output_dir") -> None:
    """Keep other runs out of ``directory`` until this process ends, however it ends. UserError names the
    process that has it.

    The kernel lets go of the lock when its process dies, so a lock file alone means nothing: a run that was
    killed is recognised.
    """
    import atexit

    path = Path(os.path.realpath(directory)) / NAME
    if path in _locks:
        return
    file = _lock_file(path)
    taken = _taken(file, directory)
    owner = file.read(LONGEST_OWNER).decode(errors="replace")
    if not owner.startswith(OWNER[: len(owner)]):
        file.close()
        raise UserError(f"{path} is no lock of a run of ours: move it away")
    if not taken:
        raise UserError(
            f"{directory} is in use by {owner or 'another process'}; wait for it, or take another "
            f"{folder_flag}"
        )
    if owner:
        say(f"{directory}: {owner} ended without notice; going on from what it left")
    file.truncate(0)
    file.seek(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"{OWNER}{os.getpid()} on {socket.gethostname()} since {since}".encode())
    _locks[path] = file
    atexit.register(file.truncate, 0)


def _taken(file: FileIO, directory: AnyPath) -> bool:
    """Whether the lock is ours now, as it is where there are no locks. Tried for a moment: who only looks
    (:func:`owner_of`) has it too, and lets go at once."""
    import fcntl

    end = time.monotonic() + MOMENT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(MOMENT / 100)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            say(f"{directory}: this file system has no locks; see that only one run uses the folder")
            return True
        else:
            return True


def owner_of(directory: AnyPath) -> str | None:
    """Who writes to ``directory`` now, None if nobody does or nobody can know. Changes nothing."""
    import fcntl

    path = Path(directory) / NAME
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_file():
            return None
        with open(path, "rb") as file:
            owner = file.read(LONGEST_OWNER).decode(errors="replace")
            if Path(os.path.realpath(path)) in _locks:
                return owner
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return owner or "another process"
    return None


def _lock_file(path: Path) -> FileIO:
    """The lock file, open and unbuffered. UserError where something else has its place, which is neither
    followed nor waited for."""
    follow_nothing = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise UserError(f"{path} is no file, as a run's lock is: move it away")
        return open(path, "r+b", buffering=0, opener=lambda name, _: os.open(name, follow_nothing, 0o666))
