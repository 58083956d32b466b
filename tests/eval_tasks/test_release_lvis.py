"""LVIS: a question a class, about its largest object."""

import json
import random

import pytest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import release_lvis, release_records, releases
from tests.eval_tasks.releasing import BROKEN, documents, lvis


def test_lvis_asks_about_the_largest_object_of_a_class(tmp_path, capsys, monkeypatch):
    lvis(tmp_path)
    monkeypatch.setitem(release_records.PUBLISHED_FILES["lvis_v1_val.json"], "images", 2)
    releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))
    said = "".join(capsys.readouterr())
    assert (
        "lvis_v1_val.json: 4 annotations; the published file has 244707" in said
        and "images; the published" not in said
    )
    cup, dog = documents(tmp_path / "root", "spr_lvis_point")
    # Neither its own, dog nor sky.
    assert (cup["id"], cup["name"], cup["synonyms"], cup["negative"]) == (
        "5",
        "tea_cup",
        ["tea_cup_x"],
        "cat",
    )
    assert (cup["truth_first"], dog["truth_first"]) == (True, False) and dog["point"] == [70.0, 20.0]
    assert all(10 <= value <= 50 for value in cup["point"])


def test_a_point_lies_inside_the_object():
    # An open frame: its box's centre is outside.
    ring = [[0, 0, 90, 0, 90, 10, 10, 10, 10, 80, 90, 80, 90, 90, 0, 90]]
    for seed in range(50):
        x, y = release_lvis.point_inside(ring, [0.0, 0.0, 90.0, 90.0], random.Random(seed))
        assert x <= 11 or y <= 11 or y >= 79


@pytest.mark.parametrize("number", BROKEN)
@pytest.mark.parametrize("field", ["bbox", "area", "segmentation"])
def test_no_number_of_lvis_may_be_none(tmp_path, number, field):
    lvis(tmp_path)
    file = tmp_path / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    content["annotations"][0][field] = {
        "bbox": [1, 1, number, 9],
        "area": number,
        "segmentation": [[1, 1, number, 1, 9, 9]],
    }[field]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="^LVIS annotation 5: .*finite"):
        releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))


WRONG_VALUES = [
    "1e999",
    "9" * 5000,
    '"wide"',
    "null",
    "[]",
    "{}",
    "-1e999",
    "NaN",
    '"\\ud83d"',
    "[" * 5000 + "]" * 5000,
]


@pytest.mark.parametrize("value", WRONG_VALUES, ids=lambda value: value[:8])
@pytest.mark.parametrize("key", ["width", "bbox", "coco_url", "category_id", "segmentation"])
def test_a_wrong_value_of_a_release_is_one_line(tmp_path, key, value):
    lvis(tmp_path)
    file = tmp_path / "lvis_v1_val.json"
    text = json.dumps(
        json.loads(
            file.read_text(), object_hook=lambda record: {**record, key: "VALUE"} if key in record else record
        )
    )
    file.write_text(text.replace('"VALUE"', value))
    try:
        releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))
    except UserError as refused:
        assert len(str(refused)) < 400
