"""A log is read while it is written: each record once, none that is half there, and anew where it was made
again."""

import shutil

import pytest

from spr_plugin.errors import UserError
from spr_plugin.runs.growing import Growing, Replaced
from spr_plugin.runs.log import Log, line_of


def ids(growing):
    return [record["id"] for _, record in growing.more()]


def test_each_record_comes_once_whenever_and_by_whichever_rank_it_was_written(tmp_path):
    growing = Growing(Log(tmp_path / "log"))
    assert ids(growing) == []  # the folder is not there yet
    Log(tmp_path / "log").append({"id": "a"}, {"id": "b"})
    assert ids(growing) == ["a", "b"] and ids(growing) == []
    Log(tmp_path / "log", rank=1).append({"id": "c"})
    Log(tmp_path / "log").append({"id": "d"})
    assert sorted(ids(growing)) == ["c", "d"] and ids(growing) == []
    assert growing["c"] == [{"id": "c"}] and growing["d"] == [{"id": "d"}] and growing["e"] == []


def test_a_line_that_is_being_written_is_waited_for_and_a_damaged_one_passed_over(tmp_path):
    log, growing = Log(tmp_path), Growing(Log(tmp_path))
    whole = line_of({"id": "a", "text": "x" * 40}) + line_of({"id": "b"})
    for end in (0, 5, 30, len(line_of({"id": "a", "text": "x" * 40})) - 1):
        log.path.write_bytes(whole[:end])
        assert ids(growing) == [] and growing.damaged == 0
    log.path.write_bytes(whole + b"nonsense\n" + line_of({"id": "c"}) + line_of({"no": "id"}))
    assert ids(growing) == ["a", "b", "c"] and growing.damaged == 2


def test_records_of_one_key_are_had_together_the_first_of_an_id(tmp_path):
    log, growing = Log(tmp_path), Growing(Log(tmp_path), "query")
    log.append(
        *({"id": id, "query": query, "n": n} for n, (id, query) in enumerate(["aq", "br", "cq", "aq"]))
    )
    assert [key for key, _ in growing.more()] == ["q", "r", "q", "q"]
    assert [(one["id"], one["n"]) for one in growing["q"]] == [("a", 0), ("c", 2)]


def rewritten(path):
    Log(path).write([{"id": "z", "text": "another"}, {"id": "y"}, {"id": "x"}])


def swapped(path):
    """Another record begins exactly where one was."""
    Log(path).write([{"id": "a"}, {"id": "c"}])


def shortened(path):
    file = Log(path).path
    file.write_bytes(file.read_bytes()[:10])


def gone(path):
    shutil.rmtree(path)


@pytest.mark.parametrize("how", [rewritten, swapped, shortened, gone])
def test_a_log_that_was_made_again_is_said_to_be(tmp_path, how):
    growing = Growing(Log(tmp_path / "log"))
    Log(tmp_path / "log").append({"id": "a"}, {"id": "b"})
    assert ids(growing) == ["a", "b"]
    how(tmp_path / "log")
    with pytest.raises(UserError, match="changed while it was read"):
        growing["b"]
    with pytest.raises(Replaced):
        ids(growing)


@pytest.mark.parametrize(
    "text, found",
    [
        ("RED Cup", {"a"}),
        ("ärmel", {"b"}),
        ('say "no"', {"b"}),
        ("back\\slash", {"c"}),
        ("two\nlines", {"c"}),
        ("text", set()),  # a key of the records, in none of their values
        ("nested", {"c"}),
        ("\ud83d", {"d"}),
        ("b", {"b", "c"}),
    ],
)
def test_a_text_is_found_in_values_in_whatever_case_and_however_json_writes_it(tmp_path, text, found):
    Log(tmp_path).append(
        {"id": "a", "text": "a red cup"},
        {"id": "b", "text": 'der ÄRMEL, say "no"'},
        {"id": "c", "rows": [{"deep": "nested back\\slash two\nlines"}], "n": 7},
        {"id": "d", "text": "half \ud83d"},
    )
    growing = Growing(Log(tmp_path))
    list(growing.more())
    assert growing.found(text) == found
