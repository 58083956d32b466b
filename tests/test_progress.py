"""Without a terminal a stage prints plain lines, the last one when it is done; on one it has a bar."""

import io
import sys

import pytest

from spr_plugin import progress as module
from spr_plugin.progress import Progress, counted, progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines(capsys):
    assert list(progress(iter("abc"), 3, "scoring", lambda: "skipped 1")) == list("abc")
    line = capsys.readouterr().err.strip()
    assert line.startswith("spr: scoring 3/3, ") and line.endswith("0 s left, skipped 1")


def test_at_most_one_line_a_minute_and_one_at_the_end(clock, capsys):
    for _ in progress(range(200), 200, "sampling"):
        clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [
        "spr: sampling 60/200, 1.00/s, 140 s left",
        "spr: sampling 120/200, 1.00/s, 80 s left",
        "spr: sampling 180/200, 1.00/s, 20 s left",
        "spr: sampling 200/200, 1.00/s, 0 s left",
    ]


def test_rate_and_time_left_are_those_of_this_process(clock, capsys):
    shown = Progress("DPO", 100, done=50)
    clock[0] = 60.0
    shown.to(50)
    clock[0] = 120.0
    shown.to(80, "loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "spr: DPO 50/100, 0.00/s",
        "spr: DPO 80/100, 0.25/s, 80 s left, loss 0.5",
    ]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("DPO", 4, done=2)
    shown.to(3)
    shown.write("{'loss': 1}")
    shown.to(4, "loss 0.5")
    shown.close()
    printed = terminal.getvalue()
    assert (
        "spr DPO:  50%" in printed
        and "| 4/4 [" in printed
        and "loss 0.5" in printed
        and "\nspr: " not in printed
    )
    assert capsys.readouterr().out == "{'loss': 1}\n"


def test_silent_on_other_ranks_and_for_nothing(capsys):
    assert list(progress([1], 1, "x", show=False)) == [1]
    assert list(progress([], 0, "x")) == []
    assert capsys.readouterr().err == ""


def test_counted_puts_the_most_frequent_first():
    assert list(counted(["b", "a", "b"]).items()) == [("b", 2), ("a", 1)]
