"""The lock is a file of ours or none."""

import os
import subprocess
import sys

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


@pytest.mark.parametrize("make", STRANGE_LOCKS.values(), ids=STRANGE_LOCKS)
def test_a_lock_that_no_run_made_is_refused_and_left_as_it_is(tmp_path, make):
    """In a process of its own, which a pipe could hold for ever."""
    make(tmp_path / "lock")
    code = (
        "from spr_plugin.errors import UserError\nfrom spr_plugin.runs.lock import lock\ntry:"
        f" lock({str(tmp_path)!r})\nexcept UserError as it: print(it)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith(f"{tmp_path}/lock") and done.stdout.endswith("move it away\n"), done
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    for name in ("lock", "target"):
        path = tmp_path / name
        if path.is_file():
            assert path.read_bytes() in (b"precious", b"\xff\x00" * 100_000)
    assert (tmp_path / "target").exists() == (make is STRANGE_LOCKS["a link"])
