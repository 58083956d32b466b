"""What all releases share: counts that are told, layouts that are checked, boxes that are cut."""

from collections import Counter

import pytest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.release_records import by_id, check_file, clipped, json_of, layout, xyxy


@pytest.mark.parametrize(
    ("box", "kept", "why"),
    [
        ((10, 20, 30, 40), [10, 20, 30, 40], None),
        ((-5, -5, 30, 99), [0, 0, 30, 80], None),
        ((99, 0, 200, 10), [99, 0, 100, 10], None),
        ((99.5, 0, 200, 10), None, "outside"),
        ((100, 0, 200, 10), None, "outside"),
        ((-9, -9, -1, -1), None, "outside"),
        ((10, 10, 10.5, 40), None, "too_small"),
        ((30, 10, 20, 40), None, "too_small"),
    ],
)
def test_a_box_is_kept_on_its_picture_or_counted(box, kept, why):
    skipped = Counter()
    assert clipped(box, 100, 80, skipped, "a box") == kept
    assert skipped == ({why: 1} if why else {})


@pytest.mark.parametrize("size", [(100, float("inf")), (float("nan"), 80)])
def test_a_picture_without_a_size_is_refused(size):
    with pytest.raises(UserError, match=r"^row 3: the box \[1.0, 2.0, 3.0, 4.0\] in a picture of .* finite$"):
        clipped((1, 2, 3, 4), *size, Counter(), "row 3")


def test_corners_of_a_box_with_sides():
    assert xyxy(["1", 2, 30, 40.5]) == [1.0, 2.0, 31.0, 42.5]


def test_one_id_is_one_thing(tmp_path):
    rows = [(1, "a"), (2, "b"), (1, "a")]
    assert by_id(rows, tmp_path) == {1: "a", 2: "b"}
    with pytest.raises(UserError, match=f"^{tmp_path}: id 2 stands there twice, with different contents$"):
        by_id([*rows, (2, "c")], tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda row: row["width"], "a file, it lacks 'width'"),
        (lambda row: int(row["id"]), "a file (invalid literal for int() with base 10: 'one')"),
        (lambda row: row["boxes"][0], "a file (list index out of range)"),
        (lambda row: int(row["area"]), "a file (cannot convert float infinity to integer)"),
        (lambda row: row["name"].strip(), "a file ('NoneType' object has no attribute 'strip')"),
    ],
)
def test_a_record_of_another_layout_is_one_line(wrong, said):
    row = {"id": "one", "boxes": [], "area": float("inf"), "name": None}
    with pytest.raises(UserError) as caught, layout("a file"):
        wrong(row)
    assert str(caught.value) == said


def test_what_is_said_inside_of_a_layout_stays():
    with pytest.raises(UserError, match="^mine$"), layout("a file"):
        raise UserError("mine")


def test_another_count_than_the_published_one_is_said(capsys):
    check_file("region_descriptions.json", images=108077)
    assert capsys.readouterr().err == ""
    check_file("region_descriptions.json", images=108077, regions=7)
    said = capsys.readouterr().err
    assert "region_descriptions.json: 7 regions; the published file has 5408689" in said


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(UserError, match=f"^{tmp_path / 'a.json'}"):
        json_of(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": [1.5]}')
    assert json_of(tmp_path / "a.json") == {"a": [1.5]}
