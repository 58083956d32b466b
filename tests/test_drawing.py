"""Boxes as they are painted on a picture, and as they lie over one."""

import pytest
from PIL import Image, ImageColor

from spr_plugin.drawing import COLORS, OTHER, SIDE, THICK, THIN, drawn, lines_of, overlay, rectangle, shrunk
from spr_plugin.recipes.base import Mark

MARKS = [
    Mark("region", (0, 0, 90, 90)),
    Mark("truth", (10, 10, 40, 40)),
    Mark("detector", (50, 50, 60, 60)),
    Mark("written", (12, 12, 42, 42), picture=1),
]


def test_what_was_written_has_its_side_s_colour_and_a_thick_line():
    for side in ("chosen", "rejected"):
        assert lines_of(MARKS, side) == [
            (OTHER, (0, 0, 90, 90), THIN),
            (COLORS["truth"], (10, 10, 40, 40), THIN),
            (COLORS["detector"], (50, 50, 60, 60), THIN),
            (COLORS[side], (12, 12, 42, 42), THICK),
        ]


def test_thick_ones_lie_below():
    over = overlay(MARKS, "chosen")
    assert [one["kind"] for one in over] == ["chosen", "region", "truth", "detector"]
    assert over[0] == {"kind": "chosen", "picture": 1, "x": 12, "y": 12, "width": 30, "height": 30}


def test_a_rectangle_of_two_corners_in_whatever_order():
    wanted = {"kind": "a", "picture": 0, "x": 1.23, "y": 2, "width": 8.77, "height": 4}
    assert rectangle("a", (1.234, 2, 10, 6)) == rectangle("a", (10, 6, 1.234, 2)) == wanted


@pytest.mark.parametrize(
    ("size", "side", "shown"),
    [((720, 360), SIDE, (360, 180)), ((40, 80), SIDE, (180, 360)), ((3000, 2), 30, (30, 1))],
)
def test_the_longer_side_is_given(size, side, shown):
    assert shrunk(Image.new("RGB", size), side).size == shown


def test_lines_lie_where_the_boxes_are_and_thin_ones_above():
    picture = Image.new("RGB", (100, 50), "white")
    boxes = [("#ff0000", (10, 10, 60, 40), 1), ("#0000ff", (60, 40, 10, 10), 5)]
    made = drawn(picture, boxes, side=200)
    colour = lambda x, y: made.getpixel((x, y))
    red, blue, white = map(ImageColor.getrgb, ("#ff0000", "#0000ff", "white"))
    assert made.size == (200, 100) and picture.getpixel((10, 20)) == white
    assert colour(20, 50) == red and colour(23, 50) == blue and colour(60, 50) == white
    assert colour(120, 50) == red and colour(60, 20) == red and colour(60, 80) == red
