"""Record logs survive whatever a crash leaves behind."""

import json

import pytest

from spr_plugin.errors import UserError
from spr_plugin.store import Log, check_manifest, counted, read_json, write_json


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


def test_counted_puts_the_most_frequent_first():
    assert list(counted(["b", "a", "b"]).items()) == [("b", 2), ("a", 1)]
