"""Files are written whole or not at all, and deleted without following anything."""

import os
import threading

import pytest

from spr_plugin import files
from spr_plugin.errors import UserError
from spr_plugin.files import content, read_json, write_json
from spr_plugin.runs.lock import lock
from spr_plugin.runs.log import Log


def test_write_json_replaces_as_a_whole(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})
    write_json(tmp_path / "a.json", {"n": 2})
    assert read_json(tmp_path / "a.json") == {"n": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "none.json") is None


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "report.html").symlink_to(tmp_path / "mine")
    files.write_text(tmp_path / "report.html", "ours")
    assert (tmp_path / "mine").read_text() == "precious" and (tmp_path / "report.html").read_text() == "ours"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (
        lambda: Log(tmp_path / "file" / "stage").append({"id": "a"}),
        lambda: write_json(tmp_path / "file" / "a.json", {}),
        lambda: lock(tmp_path / "file"),
    ):
        with pytest.raises(UserError, match=r"file.*run the same command again"):
            write()


def test_a_folder_without_permission_is_one_line(tmp_path, ordinary_user):
    log = Log(tmp_path / "stage")
    log.append({"id": "a"})
    log.path.chmod(0o444), log.directory.chmod(0o555), tmp_path.chmod(0o555)
    with ordinary_user:
        for write in (
            lambda: Log(log.directory).append({"id": "b"}),
            lambda: Log(log.directory).write([]),
            lambda: write_json(tmp_path / "a.json", {}),
            lambda: lock(tmp_path),
        ):
            with pytest.raises(
                UserError, match=f"^{tmp_path}.*Permission denied; what was written before is safe"
            ):
                write()
        assert list(log.read()) == ["a"]


def test_the_content_of_a_large_file_is_that_of_its_blocks(tmp_path):
    file = tmp_path / "large"
    data = bytearray(os.urandom(5 << 20))
    hashes = set()
    for offset in (None, 0, len(data) - 1, len(data) // 63 * 20):
        if offset is not None:
            data[offset] ^= 1
        file.write_bytes(data)
        hashes.add(content(file)["hash"])
    file.write_bytes(data + b"x")
    assert len({*hashes, content(file)["hash"]}) >= 4


def test_remove_takes_whatever_lies_there(tmp_path):
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe", "file", "nothing"):
        files.remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "in"]
    files.remove(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match=f"{tmp_path}/{name} cannot be read .not a regular file."):
            read_json(tmp_path / name)


# --- drafts -----------------------------------------------------------------------------------------------


def test_a_draft_is_nobody_else_s_and_takes_its_place_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "getpid", lambda: 1)
    assert len({files.draft_of(tmp_path / "a") for _ in range(100)}) == 100
    synced, host_sync, host_replace = [], files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda file: (host_sync(file), synced.append("synced")))
    monkeypatch.setattr(files.os, "replace", lambda *names: (host_replace(*names), synced.append("replaced")))
    with files.draft(tmp_path / "a") as file:
        file.write(b"1")
    assert synced == ["synced", "replaced"] and (tmp_path / "a").read_bytes() == b"1"
    with pytest.raises(ZeroDivisionError), files.draft(tmp_path / "a") as file:
        file.write(bytes(1 // 0))
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"1"


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    def write(letter):
        for _ in range(20):
            with files.draft(tmp_path / "a") as file:
                file.write(letter * 10_000)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    [writer.start() for writer in writers], [writer.join() for writer in writers]
    left = (tmp_path / "a").read_bytes()
    assert len(left) == 10_000 and len(set(left)) == 1 and len(list(tmp_path.iterdir())) == 1
