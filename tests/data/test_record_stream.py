"""Records one after the other, each with its place in the file, wherever its pieces end."""

import io
import json

import pytest

from spr_plugin.data import record_stream
from spr_plugin.data.record_stream import RecordStream, is_id
from spr_plugin.errors import UserError

CHUNKS = pytest.mark.parametrize("chunk", [1, 3, 1 << 20])


@pytest.fixture
def stream(monkeypatch):
    """``stream(text or bytes, chunk)`` → its records as they are read, so many bytes at a time."""

    def open_it(content, chunk=1 << 20):
        monkeypatch.setattr(record_stream, "CHUNK", chunk)
        return RecordStream(
            io.BytesIO(content if isinstance(content, bytes) else content.encode()), "coco.json"
        )

    return open_it


@CHUNKS
@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeff \n"])
def test_each_value_has_its_bytes(stream, chunk, start):
    """Of a file with characters of two bytes, and numbers that go on."""
    records = [{"id": 1, "name": "é"}, 12.5, -3e-5, "中", [1, [2]], None, {}]
    text = start + json.dumps({"info": {"a": [1]}, "images": records}, ensure_ascii=False)
    content = text.encode()
    read = stream(content, chunk)
    found = {name: list(read.elements(read.value)) for name in read.lists()}
    assert [value for *_, value in found["images"]] == records and len(found) == 1
    assert [json.loads(content[at : at + size]) for at, size, _ in found["images"]] == records


@CHUNKS
def test_lists_come_in_the_file_s_order_and_others_are_passed_over(stream, chunk):
    text = '{"annotations": [], "x": [{"images": [1]}], "images": 7, "categories": [{"id": 1}, {"id": 2}]}'
    read = stream(text, chunk)
    found = {name: [value for *_, value in read.elements(read.value)] for name in read.lists()}
    assert found == {"annotations": [], "categories": [{"id": 1}, {"id": 2}]}
    assert list(stream("[1, 2]").lists()) == [] == list(stream("").lists())


@CHUNKS
def test_annotations_are_their_places_and_pictures(stream, chunk):
    rows = [
        {"id": 1, "image_id": 3, "bbox": [1, 2, 3, 4]},
        {"note": '"image_id": 9}', "image_id": 4},
        {"image_id": "five"},
        {"inner": {"image_id": 8}, "image_id": 6},
        {"image_id": None},
        {"image_id": 1 << 70},
        {"none": 1},
        17,
    ]
    text = json.dumps({"annotations": rows})
    read = stream(text, chunk)
    found = [row for _ in read.lists() for row in read.elements(read.annotation)]
    assert [id for *_, id in found] == [3, 4, "five", 6, None, None, None, None]
    assert [json.loads(text[at : at + size]) for at, size, _ in found] == rows


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_named(stream, encoding):
    with pytest.raises(UserError, match=f"--spr_annotations coco.json: is {encoding[:6]}.*save it as UTF-8"):
        stream('{"images": []}'.encode(encoding))


@CHUNKS
@pytest.mark.parametrize(
    ("text", "byte", "why"),
    [
        ('{"images": [1 2]}', 14, ", or ] expected"),
        ('{"a" 1}', 5, ": expected"),
        ('{"a": 1', 7, "the file ends there"),
        ('{"images": [', 12, ""),
        ('{"é": tru}', 7, ""),
    ],
)
def test_broken_json_is_refused_with_its_byte(stream, chunk, text, byte, why):
    read = stream(text, chunk)
    with pytest.raises(UserError, match="^--spr_annotations coco.json: not JSON") as caught:
        for _ in read.lists():
            list(read.elements(read.value))
    assert f"(near byte {byte}: {why}" in str(caught.value)


@pytest.mark.parametrize("deep", ['{"a":' * 100_000, "[" * 100_000, '[{"a":' * 50_000])
def test_deep_nesting_is_one_line(stream, deep):
    with pytest.raises(UserError, match="not JSON .*nested too deep"):
        list(stream(f'{{"info": {deep}').lists())
    read = stream(f'{{"annotations": [{{"image_id": 1, "x": [{deep}')
    with pytest.raises(UserError, match="not JSON"):
        for _ in read.lists():
            list(read.elements(read.annotation))


@pytest.mark.parametrize(
    ("value", "whether"),
    [(3, True), ("a", True), (-(1 << 62), True), (1 << 63, False), (1.5, False), (None, False)],
)
def test_what_may_be_an_id(value, whether):
    assert is_id(value) == whether
