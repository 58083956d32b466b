"""Record logs survive whatever a crash leaves behind, and believe nothing that was not written."""

import json
import os
import subprocess
import sys
import time
import zlib

import pytest

from spr_plugin.errors import UserError
from spr_plugin.runs import log as log_module
from spr_plugin.runs.growing import Growing
from spr_plugin.runs.log import BEGUN, Log, counts_in, lines_in


def test_reads_all_ranks_ordered_by_id(tmp_path):
    Log(tmp_path, rank=1).append({"id": "b", "n": 2})
    Log(tmp_path, rank=0).append({"id": "c", "n": 3}, {"id": "a", "n": 1})
    assert list(Log(tmp_path).read().items()) == [
        (k, {"id": k, "n": n}) for k, n in (("a", 1), ("b", 2), ("c", 3))
    ]


def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path, ordinary_user):
    log, growing = Log(tmp_path / "scores"), Growing(Log(tmp_path / "scores"), "id")
    log.append({"id": "a", "reason": "no_box"})
    tmp_path.chmod(0o755), log.directory.chmod(0)
    with ordinary_user:
        for read in (log.read, lambda: log.words("reason"), lambda: list(growing.more())):
            with pytest.raises(UserError, match="scores.*Permission denied"):
                read()
        with pytest.raises(PermissionError):
            lines_in(log.directory)
    log.directory.chmod(0o755)
    assert list(log.read()) == ["a"] and lines_in(log.directory) == {"rank-00000.jsonl": 1}
    assert not Log(tmp_path / "gone").read() and lines_in(log.path / "under a file") == {}


def test_records_are_counted_by_their_ends(tmp_path):
    """Over the borders of what is read at once, and whatever line ends an editor gave them."""
    log = Log(tmp_path)
    log.append(*({"id": str(n), "text": "x" * 9000} for n in range(300)))
    assert counts_in(tmp_path) == {"rank-00000.jsonl": (300, 0)}
    content = log.path.read_bytes()
    log.path.write_bytes(content.replace(b"\n", b"\r\n"))
    assert counts_in(tmp_path) == {"rank-00000.jsonl": (300, 0)} and len(log.read()) == 300
    log.path.write_bytes(b'\n{"id": "a"}\n' + content + b"garbage\n \n" + content[:50])
    assert counts_in(tmp_path) == {"rank-00000.jsonl": (300, 2)} and lines_in(tmp_path) == {
        log.path.name: 300
    }


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
    assert list(log.read()) == ["b"] and log.held() == {"b"}
    assert f"{log.path}:1 is damaged" in capsys.readouterr().err


def test_the_first_of_two_records_with_one_id_counts(tmp_path):
    Log(tmp_path).append({"id": "a", "n": 1}, {"id": "a", "n": 2})
    assert Log(tmp_path).read()["a"]["n"] == 1


def test_records_are_one_json_object_a_line(tmp_path):
    log = Log(tmp_path)
    log.append({"id": "a", "text": "two\nlines"})
    (record,) = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert record == {"id": "a", "text": "two\nlines", "crc": record["crc"]}
    body = log.path.read_bytes().partition(b', "crc"')[0]
    assert record["crc"] == f"{zlib.crc32(body):08x}"


STRANGE_TEXTS = [
    "",
    "é",
    "\u2028 \x85 \x0b \r\n",
    "\ud83d",
    "\U0001f600",
    '"}\n',
    '", "crc": "00000000',
    "\0\x7f\x1b[31m",
]


@pytest.mark.parametrize("text", STRANGE_TEXTS, ids=ascii)
def test_whatever_a_model_writes_comes_back_as_it_was(tmp_path, text):
    record = {"id": text, "text": text, "rows": [[text, 0.1, None, True]]}
    Log(tmp_path).append(record, {"id": "b"})
    assert Log(tmp_path).read()[text] == record and Log(tmp_path).held() == {text, "b"}


def test_no_flipped_bit_is_believed(tmp_path):
    """One costs its record, or the two that its line end divides; the others stay as they are. Every third,
    which meets all bits.
    """
    log = Log(tmp_path)
    records = [{"id": str(n), "text": f"a cup [0.{n}1, 0.2]", "score": n / 7} for n in range(3)]
    log.append(*records)
    log.close()
    whole = log.path.read_bytes()
    for index in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[index // 8] ^= 1 << index % 8
        log.path.write_bytes(damaged)
        read = Log(tmp_path).read()
        assert 1 <= len(read) < 3 and all(record in records for record in read.values()), index
        assert read.damaged


@pytest.mark.parametrize("change", [
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: b"\xef\xbb\xbf" + data,
    lambda data: data + b"\n",
    lambda data: data.replace(b"\n", b"\n\r\n"),
])  # fmt: skip
def test_what_an_editor_adds_to_lines_damages_none(tmp_path, change):
    log = Log(tmp_path)
    log.append({"id": "a", "text": "\u2028"}, {"id": "b"})
    log.path.write_bytes(change(log.path.read_bytes()))
    log = Log(tmp_path)
    assert dict(log.read()) == {"a": {"id": "a", "text": "\u2028"}, "b": {"id": "b"}}
    log.append({"id": "c"})
    assert log.held() == {"a", "b", "c"} and not log.read().damaged


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
        Log(tmp_path, rank).append(
            *({"id": f"{n:03d}", "rank": rank, "text": "\u00e9" * n} for n in range(rank, 60, 3))
        )
    records = Log(tmp_path).read()
    assert list(records) == [f"{n:03d}" for n in range(60)] and records["031"] == {
        "id": "031",
        "rank": 1,
        "text": "\u00e9" * 31,
    }
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
from spr_plugin.runs.log import Log
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
    """The kernel takes a part of the write and refuses the rest: one line, nothing half, and it goes on when
    there is room.
    """
    out = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert (
        out.stdout.startswith(f"{Log(tmp_path).path}: File too large; what was written before is safe")
        and out.stdout.count("\n") == 1
    )
    records = Log(tmp_path).read()
    assert list(records) == ["0", "3"] and not records.damaged


def test_the_disk_takes_what_was_appended_at_a_bounded_interval(tmp_path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(now[0]))
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now[0])
    log = Log(tmp_path)
    for second in range(13):
        now[0] = float(second)
        log.append({"id": str(second)})
    assert synced == [6.0, 12.0]
    log.close()
    assert synced == [6.0, 12.0, 12.0]


def test_other_tools_read_the_logs(tmp_path):
    """``datasets`` reads all ranks' files as one table, also where records differ."""
    Log(tmp_path, 0).append(
        {
            "id": "a",
            "truth": [[0.0, 1.0]],
            "candidates": [{"id": "x", "initial": {"terms": {}, "total": 0.0, "reason": "empty"}}],
        }
    )
    Log(tmp_path, 1).append(
        {
            "id": "b",
            "truth": [[0.5, 1.0]],
            "candidates": [{"id": "y", "initial": {"terms": {"s_loc": 0.5}, "total": 0.4, "reason": None}}],
        }
    )
    load_dataset = pytest.importorskip(
        "datasets"
    ).load_dataset  # the oldest environment has no lmms-eval and what it needs
    table = load_dataset(
        "json", data_files=str(tmp_path / "*.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(table["id"]) == ["a", "b"]


def test_what_there_is_to_do_is_noted_where_something_is(tmp_path):
    log = Log(tmp_path / "scores")
    log.append({"id": "a"}, {"id": "of another run"})
    Log(tmp_path / "scores", rank=1).append({"id": "b"})
    assert log.resume({"a", "b"}) == {"a", "b", "of another run"}
    assert not (tmp_path / "scores" / BEGUN).exists()
    log.resume({"a", "b", "c"})
    begun = json.loads((tmp_path / "scores" / BEGUN).read_text())
    assert abs(begun.pop("time") - time.time()) < 60
    assert begun == {"total": 3, "held": 2, "lines": {"rank-00000.jsonl": 2, "rank-00001.jsonl": 1}}
    assert Log(tmp_path / "none").resume(set()) == set() and not (tmp_path / "none").exists()


def test_words_are_counted_where_they_stand_under_their_key_alone(tmp_path):
    """A text may hold anything, a word any character."""
    log = Log(tmp_path)
    rows = [{"reason": "no_box", "text": '"reason": "empty"'}, {"reason": None}, {"reason": "no_box"}]
    log.append({"id": "a", "rows": rows}, {"id": "b", "reason": "größer", "no reason": "x"})
    assert log.words("reason") == {"no_box": 2, "größer": 1}
    assert Log(tmp_path / "none").words("reason") == {}
