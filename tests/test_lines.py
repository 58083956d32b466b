"""What data holds cannot forge or hide a line of ours."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin import boot, cli, process
from spr_plugin.data.pictures import BadImage
from spr_plugin.errors import UserError
from spr_plugin.lines import one_line, say

FORGED = {
    "a line break": ("7\nspr: error: all is well", r"7\nspr: error: all is well"),
    "a carriage return": ("7\rspr: done  ", r"7\rspr: done  "),
    "a terminal's code": ("\x1b[2K\x1b[1Aa.png", r"\x1b[2K\x1b[1Aa.png"),
    "an eight-bit code": ("\x9b31ma", r"\x9b31ma"),
    "turned text": ("a\u202egnp.exe", r"a\u202egnp.exe"),
    "a line separator": ("a\u2028spr: error: b\u2029", r"a\u2028spr: error: b\u2029"),
    "half a character": ("a \ud83d b", r"a \ud83d b"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_whatever_a_name_holds_a_line_stays_one(kind, capsys, monkeypatch):
    name, shown = FORGED[kind]
    say(f"record {name}")
    assert capsys.readouterr().err == f"spr: record {shown}\n"
    for error in (UserError(f"record {name}"), BadImage("missing_image", "gone", name, name)):
        assert shown in str(error) and len(str(error).splitlines()) == 1
    with pytest.raises(SystemExit):
        process.fail(f"record {name}")
    assert capsys.readouterr().err == f"spr: error: record {shown}\n"

    def raises():
        raise UserError(f"record {name}")

    monkeypatch.setattr(cli, "commands", raises)
    with pytest.raises(SystemExit):
        cli.main()
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    boot._one_line_for_mistakes()
    sys.excepthook(UserError, UserError(f"record {name}"), None)
    assert capsys.readouterr().err == f"spr: error: record {shown}\n" * 2


def test_a_refusal_of_a_task_is_one_line(capsys):
    refusal = pytest.importorskip("spr_plugin.eval_tasks.refusal")
    with pytest.raises(SystemExit) as refused:
        refusal.refuse("id 7\x1b[2J\u2028spr: fine is broken")
    assert capsys.readouterr().err == "spr: error: id 7\\x1b[2J spr: fine is broken\n"
    assert refused.value.code == 2


@given(st.text(st.characters() | st.characters(categories=["Cc", "Cs"])))
def test_any_text_is_one_line_that_every_stream_takes(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1 and "\x1b" not in line
    line.encode()
    assert one_line(line) == line


@pytest.mark.parametrize("text", ["plain", "A dog → a cat …", "naïve 中文 🙂", "C:\\new\\table"])
def test_ordinary_text_is_shown_as_it_is(text):
    assert one_line(text) == text
