"""Readers of a record's fields, at the edge of what each takes."""

import pytest

from spr_plugin.eval_tasks import fields

SIZE = (100, 50)  # boxes may end 2 px off it: 0.02 of the longer side


@pytest.mark.parametrize(
    "corners", [[-2, -2, 102, 52], [0, 0, 1, 1.5], [99, 49, 101, 51], ["3", "4", "9", "8"]]
)
def test_boxes_that_are_taken_as_published(corners):
    assert fields.box(corners, SIZE) == [float(corner) for corner in corners]


@pytest.mark.parametrize(
    "corners, why",
    [
        ([-2.1, 0, 9, 9], "outside"),
        ([0, -2.1, 9, 9], "outside"),
        ([90, 0, 102.1, 9], "outside"),
        ([90, 0, 99, 52.1], "outside"),
        ([0, 0, 0.9, 9], "less than a pixel"),
        ([0, 0, 9, 0.9], "less than a pixel"),
        ([20, 0, 20.9, 9], "less than a pixel"),
        ([0, 20, 9, 20.9], "less than a pixel"),
        ([99.1, 0, 102, 9], "less than a pixel"),  # of it on the picture
        ([0, 0, 1, 1], "less than a pixel"),  # no number above 1
        ([9, 0, 9, 9], "is not left, top"),
        ([0, 9, 9, 9], "is not left, top"),
        ([0, 0, 9], "is not left, top"),
        ([0, 0, float("inf"), 9], "is not left, top"),
        (None, "is not left, top"),
        ([0, 0, 10**400, 9], "is not left, top"),
    ],
)
def test_boxes_that_are_none(corners, why):
    with pytest.raises(ValueError, match=why):
        fields.box(corners, SIZE)


def test_a_point_may_lie_on_the_pictures_edge():
    assert fields.point([0, 50], SIZE) == [0.0, 50.0] and fields.point([100, 0], SIZE) == [100.0, 0.0]
    for off in ([-0.1, 0], [100.1, 0], [0, 50.1]):
        with pytest.raises(ValueError, match="outside"):
            fields.point(off, SIZE)
    for bad in ([1], [1, 2, 3], "x", [float("nan"), 1]):
        with pytest.raises(ValueError, match="x, y"):
            fields.point(bad, SIZE)


def test_texts_and_lists_hold_something():
    assert fields.text(7, SIZE) == "7" and fields.texts(["a", 1], SIZE) == ["a", "1"]
    assert fields.boxes([[0, 0, 9, 9], ("1", 2, 3, 4)], SIZE) == [[0.0, 0.0, 9.0, 9.0], [1.0, 2.0, 3.0, 4.0]]
    assert fields.texts_or_none([], SIZE) == fields.texts_or_none(None, SIZE) == []
    one = fields.listed(name=fields.text)
    assert one([{"name": "a", "other": 1}], SIZE) == [{"name": "a"}]
    readers = [
        (fields.text, " "),
        (fields.text, ["a"]),
        (fields.texts, []),
        (fields.texts, "ab"),
        (fields.texts, [""]),
    ]
    readers += [
        (fields.boxes, []),
        (fields.boxes, "ab"),
        (fields.boxes, 5),
        (one, []),
        (one, "a"),
        (one, [{"name": ""}]),
    ]
    for reader, value in readers:
        with pytest.raises(ValueError, match="is no"):
            reader(value, SIZE)
