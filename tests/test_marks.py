"""Marks beside a run: written by a line each, read back, taken back, and refused where they are none."""

import json

import pytest

from spr_plugin.errors import UserError
from spr_plugin.marks import mark, read_marks

MARKED = '{"pair": "a", "note": ""}\n{"pair": "a", "note": null}\n'


def test_the_last_line_about_a_pair_counts_and_null_takes_a_mark_back(tmp_path):
    path = tmp_path / "spr-marks.jsonl"
    for pair, note in [("a", "wrong box"), ("b", ""), ("a", "two\nlines \u2028"), ("c", "x"), ("c", None)]:
        mark(path, pair, note)
    assert read_marks(path) == {"b": "", "a": "two\nlines \u2028"}
    assert [json.loads(line)["pair"] for line in path.read_text().splitlines()] == ["a", "b", "a", "c", "c"]


def test_a_list_that_somebody_wrote_by_hand_is_read(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"pair": "a"}\r\n\r\n{"pair": "b", "note": "n", "by": "me"}')
    assert read_marks(path) == {"a": "", "b": "n"}
    mark(path, "c", "")  # not on the line before, which has no end
    assert read_marks(path) == {"a": "", "b": "n", "c": ""}


@pytest.mark.parametrize("text, why", [("", "is empty"), ("\n \n", "is empty"), (MARKED, "all taken back")])
def test_a_file_that_marks_nothing_is_told(tmp_path, capsys, text, why):
    """Where a flag names it: who named it meant to leave something out."""
    path = tmp_path / "marks.jsonl"
    path.write_text(text)
    assert read_marks(path, "--marks") == read_marks(path) == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"spr: --marks {path}: ") and why in line


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "7", '"a"', '{"note": "x"}', '{"pair": 7}', '{"pair": ""}', '{"pair": "a", "note": 7}']
    + ['{"pair": null}', "\xff", "[" * 100_000],
)
def test_what_is_no_mark_is_one_line_with_flag_file_and_number(tmp_path, line):
    path = tmp_path / "marks.jsonl"
    path.write_bytes(b'{"pair": "a"}\n' + line.encode("latin-1"))
    with pytest.raises(UserError) as refused:
        read_marks(path, "--spr_exclude_pairs")
    assert str(refused.value).startswith(f"--spr_exclude_pairs {path}:2: is no mark") and "\n" not in str(
        refused.value
    )


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_file_is_one_line(tmp_path, make):
    make(tmp_path / "marks")
    with pytest.raises(UserError, match=f"^--spr_exclude_pairs {tmp_path}/marks: .*name a file of"):
        read_marks(tmp_path / "marks", "--spr_exclude_pairs")


def test_nothing_is_marked_in_a_file_that_nobody_could_read(tmp_path):
    """One line that is no mark hides all of them: another one would seem to be kept."""
    path = tmp_path / "marks.jsonl"
    path.write_text('{"pair": "a"}\na torn li')
    with pytest.raises(UserError, match=f"^not marked: {path}:2: is no mark.*mend or remove it$"):
        mark(path, "b", "")
    assert path.read_text() == '{"pair": "a"}\na torn li'


def test_a_link_is_not_followed_nor_anything_but_a_file_written_to(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("mine")
    (tmp_path / "link").symlink_to(own)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "folder").mkdir()
    for name in ("link", "nowhere", "folder"):
        with pytest.raises(UserError, match="is no plain file"):
            mark(tmp_path / name, "a", "")
    assert own.read_text() == "mine" and not (tmp_path / "gone").exists()


def test_marks_that_may_not_be_read_are_named(tmp_path, ordinary_user):
    mark(tmp_path / "marks", "a", "")
    tmp_path.chmod(0o755), (tmp_path / "marks").chmod(0)
    with ordinary_user, pytest.raises(UserError, match=f"^{tmp_path}/marks may not be read"):
        read_marks(tmp_path / "marks")


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, ordinary_user):
    tmp_path.chmod(0o555)
    with ordinary_user, pytest.raises(UserError, match="Permission denied"):
        mark(tmp_path / "marks", "a", "")
    tmp_path.chmod(0o755)
