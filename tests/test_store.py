"""Record logs survive whatever a crash leaves behind."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from spr_plugin import store
from spr_plugin.errors import UserError
from spr_plugin.store import Log, check_manifest, content, counted, lock, read_json, write_json


def test_reads_all_ranks_ordered_by_id(tmp_path):
    Log(tmp_path, rank=1).append({"id": "b", "n": 2})
    Log(tmp_path, rank=0).append({"id": "c", "n": 3}, {"id": "a", "n": 1})
    assert list(Log(tmp_path).read().items()) == [(k, {"id": k, "n": n}) for k, n in (("a", 1), ("b", 2), ("c", 3))]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_torn_last_line_is_no_record_and_is_set_aside(tmp_path, cut):
    log = Log(tmp_path)
    log.append({"id": "a"}, {"id": "b", "text": "é"})
    data = log.path.read_bytes()
    log.path.write_bytes(data[:-cut])
    assert list(Log(tmp_path).read()) == ["a"]
    again = Log(tmp_path)
    again.append({"id": "b", "text": "é"})
    assert list(Log(tmp_path).read()) == ["a", "b"]
    assert log.path.read_bytes() == data
    assert log.path.with_suffix(".damaged").read_bytes() in data


def test_a_damaged_line_is_named_and_left_out(tmp_path, capsys):
    log = Log(tmp_path)
    log.append({"id": "a"}, {"id": "b"})
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b'{"id": \xff\n' + lines[1])
    assert list(log.read()) == ["b"]
    assert f"{log.path}:1" in capsys.readouterr().err


def test_the_first_of_two_records_with_one_id_counts(tmp_path):
    Log(tmp_path).append({"id": "a", "n": 1}, {"id": "a", "n": 2})
    assert Log(tmp_path).read()["a"]["n"] == 1


def test_records_are_one_json_object_a_line(tmp_path):
    log = Log(tmp_path)
    log.append({"id": "a", "text": "two\nlines"})
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == [{"id": "a", "text": "two\nlines"}]


def test_another_configuration_is_refused_by_the_flag_that_changed(tmp_path):
    check_manifest(tmp_path / "spr", {"spr_beta": 0.1, "spr_seed": 0}, overwrite=False)
    check_manifest(tmp_path / "spr", {"spr_beta": 0.1, "spr_seed": 0}, overwrite=False)
    with pytest.raises(UserError, match=r"--spr_beta was 0.1, is 0.2.*--spr_overwrite"):
        check_manifest(tmp_path / "spr", {"spr_beta": 0.2, "spr_seed": 0}, overwrite=False)
    with pytest.raises(UserError, match="add --spr_restart_dpo, which keeps"):
        check_manifest(tmp_path / "spr", {"spr_beta": 0.2, "spr_seed": 0}, overwrite=False)
    with pytest.raises(UserError, match="take another --output_dir or add --spr_overwrite$"):
        check_manifest(tmp_path / "spr", {"spr_beta": 0.2, "spr_seed": 1}, overwrite=False)
    Log(tmp_path / "spr" / "pairs").append({"id": "old"})
    check_manifest(tmp_path / "spr", {"spr_beta": 0.2, "spr_seed": 0}, overwrite=True)
    assert read_json(tmp_path / "spr" / "manifest.json")["config"]["spr_beta"] == 0.2
    assert not Log(tmp_path / "spr" / "pairs").read()


def test_write_json_replaces_as_a_whole(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})
    write_json(tmp_path / "a.json", {"n": 2})
    assert read_json(tmp_path / "a.json") == {"n": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "none.json") is None


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "report.html").symlink_to(tmp_path / "mine")
    store.write_text(tmp_path / "report.html", "ours")
    assert (tmp_path / "mine").read_text() == "precious" and (tmp_path / "report.html").read_text() == "ours"


def test_counted_puts_the_most_frequent_first():
    assert list(counted(["b", "a", "b"]).items()) == [("b", 2), ("a", 1)]


def test_damaged_lines_of_all_ranks_are_set_aside_before_a_stage_goes_on(tmp_path, capsys):
    for rank in range(2):
        Log(tmp_path, rank).append(*({"id": f"{rank}{n}", "text": "x" * 20} for n in range(3)))
    path = Log(tmp_path, 1).path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * len(lines[1]) + b"\n" + lines[2] + b'{"id": "torn')
    assert Log(tmp_path).held() == {"00", "01", "02", "10", "12"}
    assert f"{path}:2 is damaged" in capsys.readouterr().err
    assert path.read_bytes() == lines[0] + lines[2]
    assert path.with_suffix(".damaged").read_bytes() == b"\0" * len(lines[1]) + b"\n" + b'{"id": "torn'
    assert Log(tmp_path).read().damaged == {}


def test_records_are_read_one_at_a_time_in_any_order(tmp_path):
    for rank in range(3):
        Log(tmp_path, rank).append(*({"id": f"{n:03d}", "rank": rank, "text": "\u00e9" * n} for n in range(rank, 60, 3)))
    records = Log(tmp_path).read()
    assert list(records) == [f"{n:03d}" for n in range(60)] and records["031"] == {"id": "031", "rank": 1, "text": "\u00e9" * 31}
    assert [record["rank"] for record in records.values()] == [0, 1, 2] * 20 and "060" not in records


def test_write_holds_all_records_or_does_not_exist(tmp_path):
    log = Log(tmp_path)
    log.append({"id": "old"})

    def records():
        yield {"id": "a"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.write(records())
    assert list(log.read()) == ["old"] and [path.name for path in tmp_path.iterdir()] == [log.path.name]
    log.write([{"id": "a"}, {"id": "b"}])
    assert list(log.read()) == ["a", "b"]


FULL = """
import resource, signal, sys
from spr_plugin.errors import UserError
from spr_plugin.store import Log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Log(sys.argv[1])
log.append({"id": "0", "text": "x" * 400})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    log.append({"id": "1", "text": "x" * 400}, {"id": "2", "text": "x" * 400})
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append({"id": "3"})
log.close()
"""


def test_no_room_in_the_middle_of_an_append(tmp_path):
    """The kernel takes a part of the write and refuses the rest: one line, nothing half, and it goes on when there is room."""
    out = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert out.stdout.startswith(f"{Log(tmp_path).path}: File too large; what was written before is safe") and out.stdout.count("\n") == 1
    records = Log(tmp_path).read()
    assert list(records) == ["0", "3"] and not records.damaged


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (lambda: Log(tmp_path / "file" / "stage").append({"id": "a"}), lambda: write_json(tmp_path / "file" / "a.json", {}), lambda: lock(tmp_path / "file")):
        with pytest.raises(UserError, match=r"file.*run the same command again"):
            write()


def test_a_folder_without_permission_is_one_line(tmp_path, ordinary_user):
    log = Log(tmp_path / "stage")
    log.append({"id": "a"})
    log.path.chmod(0o444), log.directory.chmod(0o555), tmp_path.chmod(0o555)
    with ordinary_user:
        for write in (lambda: Log(log.directory).append({"id": "b"}), lambda: Log(log.directory).write([]), lambda: write_json(tmp_path / "a.json", {}), lambda: lock(tmp_path)):
            with pytest.raises(UserError, match=f"^{tmp_path}.*Permission denied; what was written before is safe"):
                write()
        assert list(log.read()) == ["a"]


@pytest.fixture
def ordinary_user(tmp_path):
    """Context manager: inside, this process has no more rights than anybody."""
    if os.geteuid():
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def as_nobody():
        opened = [path for path in tmp_path.parents if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001]
        modes = [path.stat().st_mode for path in opened]
        for path in opened:  # pytest's own folders are for their owner alone
            path.chmod(path.stat().st_mode | 0o055)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
            for path, mode in zip(opened, modes):
                path.chmod(mode)

    return as_nobody()


def test_the_disk_takes_what_was_appended_at_a_bounded_interval(tmp_path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(now[0]))
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    log = Log(tmp_path)
    for second in range(13):
        now[0] = float(second)
        log.append({"id": str(second)})
    assert synced == [6.0, 12.0]
    log.close()
    assert synced == [6.0, 12.0, 12.0]


def test_a_second_run_is_refused_and_a_dead_one_s_lock_is_not(tmp_path, capsys):
    hold = f"from spr_plugin.store import lock; lock({str(tmp_path)!r}); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is in use by process {other.pid} on .* since .*--output_dir"):
            lock(tmp_path)
        other.kill()
    lock(tmp_path)
    assert f"process {other.pid}" in capsys.readouterr().err
    lock(tmp_path)
    assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
    check_manifest(tmp_path, {}, overwrite=True)
    assert (tmp_path / "lock").exists()


def test_a_run_that_ended_well_leaves_no_owner(tmp_path, capsys):
    subprocess.run([sys.executable, "-c", f"from spr_plugin.store import lock; lock({str(tmp_path)!r})"], check=True)
    lock(tmp_path)
    assert capsys.readouterr().err == ""


def test_another_content_of_an_input_is_refused_by_its_flag(tmp_path):
    source = tmp_path / "coco.json"
    source.write_text("{}")
    inputs = {"spr_annotations": str(source)}
    check_manifest(tmp_path / "spr", {"spr_seed": 3}, False, inputs)
    manifest = read_json(tmp_path / "spr" / "manifest.json")
    assert manifest["seed"] == 3 and manifest["hash"] and manifest["inputs"]["spr_annotations"]["size"] == 2
    source.write_text("[]")
    with pytest.raises(UserError, match=r"--spr_annotations .*coco.json has another content"):
        check_manifest(tmp_path / "spr", {"spr_seed": 3}, False, inputs)


def test_the_content_of_a_large_file_is_that_of_its_blocks(tmp_path):
    file = tmp_path / "large"
    data = bytearray(os.urandom(5 << 20))
    hashes = set()
    for place in (None, 0, len(data) - 1, len(data) // 63 * 20):
        if place is not None:
            data[place] ^= 1
        file.write_bytes(data)
        hashes.add(content(file)["hash"])
    file.write_bytes(data + b"x")
    assert len({*hashes, content(file)["hash"]}) >= 4


def test_other_tools_read_the_logs(tmp_path):
    """``datasets`` reads all ranks' files as one table, also where records differ."""
    Log(tmp_path, 0).append({"id": "a", "truth": [[0.0, 1.0]], "candidates": [{"id": "x", "initial": {"terms": {}, "total": 0.0, "reason": "empty"}}]})
    Log(tmp_path, 1).append({"id": "b", "truth": [[0.5, 1.0]], "candidates": [{"id": "y", "initial": {"terms": {"s_loc": 0.5}, "total": 0.4, "reason": None}}]})
    load_dataset = pytest.importorskip("datasets").load_dataset  # the oldest environment has no lmms-eval and what it needs
    table = load_dataset("json", data_files=str(tmp_path / "*.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(table["id"]) == ["a", "b"]


# --- starting over deletes what a run of ours made, and nothing else


def run_in(folder, *stages, config={"spr_seed": 0}):
    """What a run leaves in ``folder``: its manifest and a log a stage."""
    check_manifest(folder, config, overwrite=False)
    for stage in stages:
        log = Log(folder / stage)
        log.append({"id": "a"})
        log.close()
    return folder


def tree(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "lock")


def test_overwrite_deletes_what_a_run_made_and_names_what_stays(tmp_path, capsys):
    spr = run_in(tmp_path / "spr", "regions", "candidates", "pairs")
    run_in(spr / "round-2", "candidates")
    for name in ("exit.json", "report.html", "manifest.json.123.tmp", "notes.txt", "round-2/mine.txt"):
        (spr / name).write_text("x")
    for name in ("policy.tmp", "data", "round-table", "round-3"):
        (spr / name).mkdir()
        (spr / name / "inside").write_text("x")
    check_manifest(spr, {"spr_seed": 1}, overwrite=True)
    stays = ["data", "notes.txt", "round-2", "round-3", "round-table"]
    assert sorted(path.name for path in spr.iterdir()) == sorted([*stays, "manifest.json"])
    assert [path.name for path in (spr / "round-2").iterdir()] == ["mine.txt"] and (spr / "round-3" / "inside").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in ("data", "notes.txt", "round-2/mine.txt", "round-3", "round-table")) and str(spr) in line
    assert read_json(spr / "manifest.json")["config"] == {"spr_seed": 1}


NO_MANIFESTS = {
    "none": None,
    "of a web page": '{"name": "page", "icons": []}',
    "of a container": '{"schemaVersion": 2, "config": {"digest": "sha256:0"}, "layers": []}',
    "a list": "[1, 2]",
    "broken": '{"config": {',
    "of bytes": "\udcff",
}


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", NO_MANIFESTS)
def test_a_folder_that_no_run_made_is_left_alone(tmp_path, name, overwrite):
    spr, text = tmp_path / "spr", NO_MANIFESTS[name]
    (spr / "candidates").mkdir(parents=True)
    (spr / "candidates" / "rank-00000.jsonl").write_text("years of work")
    if text is not None:
        (spr / "manifest.json").write_text(text, errors="surrogateescape")
    lock(spr)
    if text is None and not overwrite:  # a run among such files goes on, but proves nothing about what was there
        check_manifest(spr, {"spr_seed": 0}, overwrite)
        overwrite = True
    before = tree(spr)
    with pytest.raises(UserError, match="manifest.json.*move it away, or name another folder") as refused:
        check_manifest(spr, {"spr_seed": 0}, overwrite)
    assert str(spr) in str(refused.value) and (text is not None or "candidates" in str(refused.value))
    assert "\n" not in str(refused.value) and tree(spr) == before
    assert (spr / "candidates" / "rank-00000.jsonl").read_text() == "years of work"


def test_what_is_not_ours_is_never_taken_for_the_first_run_s(tmp_path):
    """Files by other names do not stop a run, but they are no reason to believe --spr_overwrite either."""
    spr = tmp_path / "spr"
    spr.mkdir()
    (spr / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=f"notes.txt in {spr}"):
        check_manifest(spr, {}, overwrite=True)
    check_manifest(spr, {}, overwrite=False)
    check_manifest(spr, {}, overwrite=True)
    assert tree(spr) == ["manifest.json", "notes.txt"]


@pytest.mark.parametrize("held", [[], ["lock"], ["lock", "manifest.json.77.tmp"]])  # the last: killed at its first write
def test_overwrite_of_a_folder_that_is_empty_or_as_good_as(tmp_path, held):
    (tmp_path / "spr").mkdir()
    for name in held:
        (tmp_path / "spr" / name).write_text("")
    check_manifest(tmp_path / "spr", {}, overwrite=True)
    assert read_json(tmp_path / "spr" / "manifest.json")["config"] == {}


def test_links_go_and_what_they_point_to_stays(tmp_path, capsys):
    """Stage folders, and all of ``spr``, on another disk."""
    real = tmp_path / "scratch"
    spr = tmp_path / "out" / "spr"
    spr.parent.mkdir()
    spr.symlink_to(real / "spr", target_is_directory=True)
    lock(spr)
    run_in(spr, "regions", "candidates")
    (spr / "candidates").rename(real / "candidates")
    (spr / "candidates").symlink_to(real / "candidates")
    run_in(real / "round", "pairs")
    (spr / "round-2").symlink_to(real / "round")
    (spr / "scores").symlink_to(real / "nowhere")
    kept = tree(real / "candidates") + tree(real / "round")
    check_manifest(spr, {"spr_seed": 1}, overwrite=True)
    assert tree(spr) == ["manifest.json"] and spr.is_symlink() and (spr / "lock").exists()
    assert tree(real / "candidates") + tree(real / "round") == kept
    said = capsys.readouterr().err
    assert all(f"{spr / name} was a link" in said for name in ("candidates", "round-2", "scores"))


def test_an_overwrite_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    """After any number of deletions: the manifest that proves the rest to be ours is still there."""
    remove, cut = store.remove, 0
    while cut is not None:
        spr = run_in(tmp_path / f"spr-{cut}", "regions", "candidates", "scores")
        run_in(spr / "round-2", "pairs")
        left = [cut]

        def dying(path):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(path)

        monkeypatch.setattr(store, "remove", dying)
        try:
            check_manifest(spr, {"spr_seed": 1}, overwrite=True)
            cut = None
        except KeyboardInterrupt:
            cut += 1
        monkeypatch.setattr(store, "remove", remove)
        check_manifest(spr, {"spr_seed": 1}, overwrite=True)
        assert tree(spr) == ["manifest.json"]


def test_what_cannot_be_deleted_is_one_line_and_goes_on_later(tmp_path, ordinary_user):
    spr = run_in(tmp_path / "spr", "candidates", "scores")
    tmp_path.chmod(0o755), spr.chmod(0o777), (spr / "candidates").chmod(0o555)
    with ordinary_user, pytest.raises(UserError, match=f"^{spr}/candidates: Permission denied[^\n]*$"):
        check_manifest(spr, {"spr_seed": 1}, overwrite=True)
    (spr / "candidates").chmod(0o755)
    check_manifest(spr, {"spr_seed": 1}, overwrite=True)
    assert tree(spr) == ["manifest.json"]


def test_remove_takes_whatever_lies_there(tmp_path):
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe", "file", "nothing"):
        store.remove(tmp_path / name)
    assert tree(tmp_path) == ["folder", "folder/in"]
    store.remove(tmp_path / "folder")
    assert tree(tmp_path) == []


def test_a_restarted_dpo_stage_deletes_no_more_than_its_own(tmp_path):
    spr = run_in(tmp_path / "spr", "pairs")
    run_in(spr / "round-2", "pairs")
    (tmp_path / "scratch").mkdir()
    (spr / "dpo").symlink_to(tmp_path / "scratch")
    for name in ("policy", "policy.tmp", "round-table"):
        (spr / name).mkdir()
    store.delete_run(spr, {"dpo", "policy", "round"})
    assert tree(spr) == ["manifest.json", "pairs", "pairs/rank-00000.jsonl", "round-table"] and (tmp_path / "scratch").exists()


# --- the lock is a file of ours or none


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
    code = f"from spr_plugin.store import lock, UserError\ntry: lock({str(tmp_path)!r})\nexcept UserError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith(f"{tmp_path}/lock") and done.stdout.count("\n") == 1 and "move it away" in done.stdout, done
    assert done.stderr == ""
    for name in ("lock", "target"):
        path = tmp_path / name
        if path.is_file():
            assert path.read_bytes() in (b"precious", b"\xff\x00" * 100_000)
    assert (tmp_path / "target").exists() == (make is STRANGE_LOCKS["a link"])
