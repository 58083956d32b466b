"""The lock is a file of ours or none."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from spr_plugin.errors import UserError
from spr_plugin.runs.lock import lock, owner_of


def test_a_second_run_is_refused_and_a_dead_one_s_lock_is_not(tmp_path, capsys, lock_held):
    with lock_held(tmp_path) as other:
        assert owner_of(tmp_path).startswith(f"process {other.pid} ")
        with pytest.raises(UserError, match=f"is in use by process {other.pid} on .* since .*--output_dir"):
            lock(tmp_path)
        other.kill()
    assert owner_of(tmp_path) is None
    lock(tmp_path)
    assert f"process {other.pid}" in capsys.readouterr().err
    lock(tmp_path)
    assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
    assert owner_of(tmp_path).startswith(f"process {os.getpid()} ")


def test_a_run_that_ended_well_leaves_no_owner(tmp_path, capsys):
    subprocess.run(
        [sys.executable, "-c", f"from spr_plugin.runs.lock import lock; lock({str(tmp_path)!r})"], check=True
    )
    lock(tmp_path)
    assert capsys.readouterr().err == ""


def test_whoever_only_looks_keeps_no_run_out(tmp_path):
    """A look holds the lock, shared, for an instant; here for a tenth of a second."""
    (tmp_path / "lock").touch()
    look = open(tmp_path / "lock", "rb")
    fcntl.flock(look, fcntl.LOCK_SH)
    end = threading.Timer(0.1, look.close)
    end.start()
    lock(tmp_path)
    end.join()
    assert owner_of(tmp_path).startswith(f"process {os.getpid()} ")


def link(path, target):
    target.write_text("precious")
    path.symlink_to(target)


STRANGE_LOCKS = {
    "a link": lambda path: link(path, path.with_name("target")),
    "a dangling link": lambda path: path.symlink_to(path.with_name("target")),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a file of somebody": lambda path: path.write_text("precious"),
    "bytes of somebody": lambda path: path.write_bytes(b"\xff\x00" * 100_000),
}


# Each folder, one after the other.
LOCK_ALL = """
import sys
from spr_plugin.errors import UserError
from spr_plugin.runs.lock import lock
for folder in sys.argv[1:]:
    try:
        lock(folder)
    except UserError as it:
        print(it)
"""


def test_a_lock_that_no_run_made_is_refused_and_left_as_it_is(tmp_path):
    """In another process, which a pipe could hold for ever."""
    folders = [tmp_path / name.replace(" ", "-") for name in STRANGE_LOCKS]
    for folder, make in zip(folders, STRANGE_LOCKS.values()):
        folder.mkdir()
        make(folder / "lock")
    words = [sys.executable, "-c", LOCK_ALL, *map(str, folders)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    for folder, line in zip(folders, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{folder}/lock") and line.endswith("move it away"), line
        for name in ("lock", "target"):
            path = folder / name
            if path.is_file():
                assert path.read_bytes() in (b"precious", b"\xff\x00" * 100_000)
        assert (folder / "target").exists() == (folder.name == "a-link")
