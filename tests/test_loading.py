"""Whoever reads a user's file reads what editors, spreadsheets and models make of one, or refuses it in one
line.
"""

import json
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spr_plugin.data.conversations import mine_conversations
from spr_plugin.data.selection import excluded
from spr_plugin.errors import UserError
from spr_plugin.formats import llava
from spr_plugin.loading import (
    parse_json,
    read_json,
    read_json_lines,
    read_lines,
    read_settings,
    read_text,
    sound,
)  # fmt: skip
from spr_plugin.tools.responses import responses_in

# --- every reader -----------------------------------------------------------------------------------------


def named(path):
    (keys,) = excluded([str(path)]).values()
    return keys


def mined(path):
    Image.new("RGB", (40, 40)).save(path.parent / "a.png")
    (image,) = mine_conversations(str(path), str(path.parent), llava("square"), Counter())
    return [annotation.label for annotation in image.annotations]


def compared(path):
    pytest.importorskip("datasets")
    from spr_plugin.eval_tasks.saved_results import read_run

    return {task: list(records) for task, records in read_run(path.parent).tasks.items()}


def documents(path):
    pytest.importorskip("datasets")
    from spr_plugin.eval_tasks.data import READERS

    return [record for record, _ in READERS[".jsonl"](path)]


def measured(path):
    pytest.importorskip("datasets")
    from spr_plugin.eval_tasks.run import read_metrics

    return read_metrics(path, "t")


TALK = [
    {"from": "human", "value": "<image>\\nWhat is there?"},
    {"from": "gpt", "value": "a d\u00f6g \\u0041\\ud83d [0.1, 0.1, 0.5, 0.9]."},
]
# name → (file, its text, reader, what it reads)
READERS = {
    "a list of pictures": (
        "a.txt",
        "000000000009.jpg\nd\u00f6g\u2028.jpg\n\n",
        named,
        {9, "d\u00f6g\u2028.jpg"},
    ),
    "pictures as JSON lines": (
        "a.jsonl",
        '{"image": "d\u00f6g\u2028.jpg"}\n{"image_id": 3}\n\n  \n{"image": "\\ud83d.jpg"}\n\n',
        named,
        {"d\u00f6g\u2028.jpg", 3, "\ufffd.jpg"},
    ),
    "pictures as JSON": (
        "a.json",
        '["d\u00f6g\u2028.jpg",\n "\\ud83d.jpg", 3]\n\n',
        named,
        {"d\u00f6g\u2028.jpg", 3, "\ufffd.jpg"},
    ),
    "conversations": (
        "data.json",
        json.dumps([{"image": "a.png", "conversations": TALK}], ensure_ascii=False).replace("\\\\u", "\\u")
        + "\n",
        mined,
        ["d\u00f6g A\ufffd"],
    ),
    "responses": (
        "in.jsonl",
        '{"id": 1, "image": "a", "region": [0, 0, 9, 9], "text": "d\u00f6g\u2028\\ud83d"}\n\n',
        lambda path: [row["text"] for row in responses_in(str(path))],
        ["d\u00f6g\u2028\ufffd"],
    ),
    "samples": (
        "1_samples_spr_x.jsonl",
        '{"details": {"id": "\u2028\\ud83d"}}\n\n{"details": {"id": 2}}\n\n',
        compared,
        {"spr_x": ["\u2028\ufffd", 2]},
    ),
    "documents": (
        "val.jsonl",
        '{"id": "d\u00f6g\u2028"}\n\n{"id": "\\ud83d"}\n\n',
        documents,
        [{"id": "d\u00f6g\u2028"}, {"id": "\ufffd"}],
    ),
    "results": (
        "x_results.json",
        '{"results": {"t": {"Acc\u2028\\ud83d,none": 1}}}\n',
        measured,
        {"Acc\u2028\ufffd": 1},
    ),
}
LOOKS = {
    "plain": str.encode,
    "a byte-order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "no last line feed": lambda text: text.rstrip("\n").encode(),
    "blank last lines": lambda text: (text + "\n \n\t\r\n").encode(),
}


def write(folder, kind, content: bytes) -> Path:
    (folder / READERS[kind][0]).write_bytes(content)
    return folder / READERS[kind][0]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", READERS)
def test_a_file_says_the_same_however_it_is_saved(tmp_path, kind, look):
    _, text, read, found = READERS[kind]
    assert read(write(tmp_path, kind, LOOKS[look](text))) == found


BROKEN = {
    "Latin-1": '["\u00e9"]\n'.encode("latin-1"),
    "cut UTF-16": '["\u00e9"]\n'.encode("utf-16")[:-1],
    "deep lists": b"[" * 100_000,
    "deep tables": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no JSON": b"{'id': 1}",
}
NO_TEXT = ("Latin-1", "cut UTF-16")


@pytest.mark.parametrize(
    ("kind", "what"),
    [(kind, what) for kind in READERS for what in BROKEN if "list of" not in kind or what in NO_TEXT],
)
def test_a_broken_file_is_one_line_with_its_name(tmp_path, kind, what):
    file, _, read, _ = READERS[kind]
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, kind, BROKEN[what]))
    line = str(refused.value)
    assert file in line and len(line) < 400 and ("not JSON" in line or "save it as UTF-8" in line)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "samples"])
def test_a_file_that_is_not_there_or_is_none_is_one_line(tmp_path, kind):
    file, _, read, _ = READERS[kind]
    with pytest.raises(UserError, match=f"{file}: No such file or directory"):
        read(tmp_path / file)
    (tmp_path / file).mkdir()
    with pytest.raises(UserError, match=f"{file}"):
        read(tmp_path / file)


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"results": 3}', "[[[]]]", '{"id": {}}', '"x"', "null", "1e999", "NaN"]
)
@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "a list of pictures"])
def test_json_of_another_kind_is_one_line_or_nothing(tmp_path, kind, text):
    try:
        READERS[kind][2](write(tmp_path, kind, text.encode()))
    except UserError as refused:
        assert str(tmp_path) in str(refused)
    except ValueError as error:  # nothing was read
        assert kind == "conversations" and "unpack" in str(error)


# --- the pieces -------------------------------------------------------------------------------------------


@given(st.text(st.characters(categories=["L", "P", "Zs", "Zl", "Cs", "So"])))
def test_sound_text_is_text_that_can_be_written(text):
    clean = sound(text)
    clean.encode()
    assert clean == sound(clean)
    assert clean == text or any("\ud800" <= c <= "\udfff" for c in text)
    assert sound(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")) == clean


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(st.sampled_from('\\u"dDeE8\ud83d\ude00\n')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, st.booleans())
def test_json_is_read_as_the_standard_library_reads_it_but_for_halves(value, ascii):
    def expected(value):
        if isinstance(value, dict):
            return {sound(key): expected(one) for key, one in value.items()}
        return (
            [expected(one) for one in value]
            if isinstance(value, list)
            else sound(value)
            if isinstance(value, str)
            else value
        )

    assert parse_json(json.dumps(value, ensure_ascii=ascii)) == expected(value)


def test_numbers_beyond_a_float_are_infinite():
    assert (
        parse_json("[1e999, -1e999, 9" + "0" * 5000 + ", -9" + "0" * 308 + "]")
        == [float("inf"), -float("inf")] * 2
    )
    assert parse_json(str(10**300)) == 10**300


@given(st.binary(max_size=80))
def test_no_bytes_are_a_traceback(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any"
    file.write_bytes(content)
    for read in (
        read_text,
        read_json,
        read_settings,
        lambda *a: read_settings(*a, yaml=True),
        lambda *a: list(read_lines(*a)),
        lambda *a: list(read_json_lines(*a)),
    ):
        try:
            read(file, "--flag any")
        except UserError as refused:
            assert str(refused).startswith("--flag any")


def test_a_pipe_is_read_once(tmp_path):
    """As a shell's ``<(command)`` is."""
    text = "".join(f"{n}.jpg\n" for n in range(20_000))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text,))
    writer.start()
    assert [line for _, line in read_lines(tmp_path / "pipe", "pipe")] == text.split()
    writer.join()


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have(path):
    with pytest.raises(UserError, match="^--flag: "):
        read_text(path, "--flag")


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path):
    (tmp_path / "a").write_bytes("\n1\u2028\x0b\x0c\x1c\u0085\r\n\n2\r3".encode())
    assert list(read_lines(tmp_path / "a", "a")) == [(2, "1\u2028\x0b\x0c\x1c\u0085"), (4, "2"), (5, "3")]
