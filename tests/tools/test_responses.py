"""Responses as `spr score` reads them: line by line, those of a region together."""

import json

import pytest

from spr_plugin.errors import UserError
from spr_plugin.tools import responses


@pytest.fixture
def written(tmp_path):
    """``written(change of a response…)`` → a file of as many, of one region of one picture."""
    path = tmp_path / "in.jsonl"

    def write(*changes) -> str:
        rows = (
            {"id": f"r{n}", "image": "a.png", "region": [0, 0, 9, 9], "text": "A cat."} for n in range(99)
        )
        path.write_text("".join(json.dumps({**row, **change}) + "\n" for row, change in zip(rows, changes)))
        return str(path)

    return write


def test_each_region_is_looked_up_once_and_all_responses_count(written):
    path = written({}, {}, {"region": [0, 0, 9, 8]}, {"image": "b.png"}, {"image": "b.png", "id": 7})
    asked = []
    assert responses.check(path, asked.append) == 5
    assert [row["id"] for row in asked] == ["r0", "r2", "r3"]


def test_what_cannot_be_scored_is_known_first(written):
    def unknown(row):
        raise UserError(f"response {row['id']}: no such picture")

    with pytest.raises(UserError, match="^response r0: no such picture$"):
        responses.check(written({}), unknown)


def test_lines_of_a_region_stand_together(written):
    path = written({}, {"image": "b.png"}, {"region": [0, 0, 9, 8]}, {"image": "b.png"})
    with pytest.raises(UserError) as caught:
        responses.check(path, len)
    said = f"--responses {path}: the lines of b.png [0, 0, 9, 9] do not stand together (r3); sort the file"
    assert str(caught.value) == said


def test_two_responses_of_one_id_are_refused(written):
    path = written({}, {"id": "r0", "text": "Two cats."})
    with pytest.raises(UserError) as caught:
        responses.check(path, len)
    said = f"--responses {path}: two responses to a.png [0, 0, 9, 9] have the id r0"
    assert str(caught.value) == said
    responses.check(written({}, {"id": "r0", "region": [0, 0, 9, 8]}), len)  # of another region


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path, content):
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(UserError, match=f"^--responses {tmp_path}/in.jsonl: holds no response$"):
        responses.check(str(tmp_path / "in.jsonl"), len)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"id": None}, "id"),
        ({"id": 1.5}, "id"),
        ({"image": 3}, "image"),
        ({"region": "all"}, "region"),
        ({"text": ["A cat."]}, "text"),
    ],
)
def test_a_field_of_another_kind_is_named(written, change, name):
    path = written({}, change)
    words = f"^--responses {path}:2: a response wants id, image, region and text; {name} is missing"
    with pytest.raises(UserError, match=words):
        list(responses.responses_in(path))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("place", [0, 2])
def test_a_region_of_numbers_that_are_none_is_named(written, number, place, tmp_path):
    """An infinite one was clipped to the picture, and scored as if it had been asked for."""
    corners = ["0", "0", "9", "9"]
    corners[place] = number
    file = tmp_path / "in.jsonl"
    written({}, {"region": "HERE"})
    file.write_text(file.read_text().replace('"HERE"', f"[{', '.join(corners)}]"))
    words = "in.jsonl:2: the region of response r1 is no .x1, y1, x2, y2. in pixels: "
    with pytest.raises(UserError, match=words) as caught:
        list(responses.responses_in(str(file)))
    assert len(str(caught.value)) < 300 + len(str(file))


def test_batches_hold_regions_of_one_picture(monkeypatch):
    monkeypatch.setattr(responses, "REGIONS", 2)
    rows = [
        {"image": image, "region": [0, 0, 1, last]}
        for image, last in [("a", 1), ("a", 1), ("a", 2), ("a", 3), ("b", 3), ("b", 3)]
    ]
    shapes = [[len(region) for region in batch] for batch in responses.batches(rows)]
    assert shapes == [[2, 1], [1], [2]]
