"""Without a terminal a stage prints plain lines, the last one when it is done."""

from spr_plugin.progress import counted, progress


def test_plain_lines(capsys):
    assert list(progress(iter("abc"), 3, "scoring", lambda: "skipped 1")) == list("abc")
    line = capsys.readouterr().err.strip()
    assert line.startswith("spr: scoring 3/3, ") and line.endswith("0 s left skipped 1")


def test_silent_on_other_ranks_and_for_nothing(capsys):
    assert list(progress([1], 1, "x", show=False)) == [1]
    assert list(progress([], 0, "x")) == []
    assert capsys.readouterr().err == ""


def test_counted_puts_the_most_frequent_first():
    assert list(counted(["b", "a", "b"]).items()) == [("b", 2), ("a", 1)]
