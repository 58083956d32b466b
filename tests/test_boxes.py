"""Boxes and their coordinate spaces."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space, best_iou, finite, iou, iou_matrix, pair_iou, size_of

SIZES = st.integers(1, 5000)
NUMBERS = st.floats(-1e4, 1e4, allow_nan=False)


@st.composite
def spaces(draw):
    width, height = draw(SIZES), draw(SIZES)
    return draw(
        st.sampled_from(
            [
                Space.pixels(width, height),
                Space.normalized(width, height),
                Space.padded_square(width, height),
                Space.grid(width, height, 999),
                Space.grid(width, height, 1000),
                Space.grid(width, height, 32),
                Space.resized(width, height, 28, 56),
                Space.crop(width, height, (3, 5, width, height)),
                Space.padded_square(17, 40).within(Space.crop(width, height, (2, 1, 19, 41))),
            ]
        )
    )


@given(spaces(), NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_to_pixels_and_back_is_the_same_box(space, x1, y1, x2, y2):
    box = Box(x1, y1, x2, y2, space)
    there = box.to(Space.pixels(space.width, space.height))
    assert there.xyxy == pytest.approx(box.pixels())
    assert there.to(space).xyxy == pytest.approx(box.xyxy, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("space", "values", "pixels"),
    [
        (Space.normalized(640, 480), (0.25, 0.5, 0.5, 1.0), (160, 240, 320, 480)),
        # LLaVA's expand2square pastes a 640 x 481 picture at y = (640 - 481) // 2 = 79.
        (Space.padded_square(640, 481), (0.0, 0.25, 1.0, 0.5), (0, 81, 640, 241)),
        (Space.padded_square(101, 200), (0.5, 0.0, 1.0, 1.0), (51, 0, 151, 200)),
        (Space.grid(640, 480, 1000), (500, 500, 1000, 1000), (320, 240, 640, 480)),
        (Space.grid(640, 480, 32), (0, 16, 16, 32), (0, 240, 320, 480)),
        (Space.resized(640, 480, 1280, 240), (20, 20, 40, 60), (10, 40, 20, 120)),
        (Space.crop(640, 480, (100, 50, 200, 150)), (0, 0, 10, 20), (100, 50, 110, 70)),
    ],
)
def test_spaces_mean_what_their_families_mean(space, values, pixels):
    assert Box(*values, space).pixels() == pytest.approx(pixels)


def test_a_space_within_a_crop_reads_like_the_crop_shifted():
    inner = Space.padded_square(100, 50)
    outer = inner.within(Space.crop(640, 480, (30, 40, 130, 90)))
    x1, y1, x2, y2 = Box(0.1, 0.3, 0.6, 0.7, inner).pixels()
    assert Box(0.1, 0.3, 0.6, 0.7, outer).pixels() == pytest.approx((x1 + 30, y1 + 40, x2 + 30, y2 + 40))
    assert (outer.width, outer.height) == (640, 480)


def test_a_space_within_a_space_of_another_scale_on_each_axis():
    """A part of 100 x 50 px whose pixels are 2 x 4 px of the picture, from 30, 40 on: 0.1 is 10 px of it, and
    20 of the picture.
    """
    part = Space("part", 640, 480, (2.0, 4.0), (30.0, 40.0))
    inner = Space("inner", 100, 50, (100.0, 50.0), (1.0, -3.0)).within(part)
    assert Box(0.1, 0.2, 0.5, 1.0, inner).pixels() == (30 + 2 * 11, 40 + 4 * 7, 30 + 2 * 51, 40 + 4 * 47)
    assert inner.name == "inner in part"


def test_another_picture_and_mixed_spaces_are_refused():
    box = Box(0, 0, 1, 1, Space.normalized(640, 480))
    with pytest.raises(ValueError, match="640x480"):
        box.to(Space.pixels(480, 640))
    with pytest.raises(ValueError, match="normalized"):
        iou(box, box.to(Space.pixels(640, 480)))
    with pytest.raises(ValueError, match="0 x 480"):
        Space.pixels(0, 480)
    with pytest.raises(ValueError, match="640 x 0"):
        Space.pixels(640, 0)
    assert Space.pixels(1, 1).same_picture(Space.normalized(1, 1))


@given(spaces(), st.data())
def test_conversions_compose(space, data):
    """By way of any other space of the picture a box arrives where it arrives directly."""
    width, height = space.width, space.height
    ways = [
        Space.normalized(width, height),
        Space.padded_square(width, height),
        Space.grid(width, height, 999),
        Space.resized(width, height, 28, 56),
    ]
    box = Box(*data.draw(st.tuples(*[NUMBERS] * 4)), space)
    through = box.to(data.draw(st.sampled_from(ways))).to(Space.pixels(width, height))
    assert through.xyxy == pytest.approx(box.pixels(), rel=1e-9, abs=1e-6)


def test_a_box_cannot_be_changed():
    with pytest.raises(AttributeError):
        Box(0, 0, 1, 1, Space.pixels(9, 9)).x1 = 3


def test_clip_keeps_the_part_on_the_picture():
    space = Space.padded_square(200, 100)
    assert Box(-0.1, 0.0, 0.5, 1.2, space).clip().pixels() == pytest.approx((0, 0, 100, 100))
    assert Box(0.2, 0.0, 0.5, 0.1, space).clip().area == 0
    inside = Box(0.2, 0.4, 0.5, 0.6, space)
    assert inside.clip() is inside
    pixels = Space.pixels(200, 100)
    whole = Box(0, 0, 200, 100, pixels)
    assert whole.clip() is whole  # also where it ends exactly at the edge
    assert Box(-5, -5, 201, 101, pixels).clip().xyxy == (0, 0, 200, 100)
    assert Box(5, 6, 201, 7, pixels).clip().xyxy == (5, 6, 200, 7) and Box(
        5, 6, 7, 101, pixels
    ).clip().xyxy == (5, 6, 7, 100)
    assert Box(-1, 6, 7, 8, pixels).clip().xyxy == (0, 6, 7, 8) and Box(1, -6, 7, 8, pixels).clip().xyxy == (
        1,
        0,
        7,
        8,
    )


def test_sides_and_area():
    box, inverted = Box(1, 2, 4, 7, Space.pixels(9, 9)), Box(4, 2, 1, 7, Space.pixels(9, 9))
    assert (box.width, box.height, box.area) == (3, 5, 15)
    assert (inverted.width, inverted.height, inverted.area) == (-3, 5, 0)
    assert Box(1, 7, 4, 2, Space.pixels(9, 9)).area == Box(4, 7, 1, 2, Space.pixels(9, 9)).area == 0
    assert Box.of([1, 2, 4, 7], box.space) == box
    for corners in ([1, 2, 4], [1, 2, 4, 7, 9]):
        with pytest.raises(ValueError, match="unpack"):
            Box.of(corners, box.space)


@pytest.mark.parametrize(
    "values, whether",
    [
        ([], True),
        ([0, 1.5], True),
        ([1, math.nan], False),
        ([math.inf, 1], False),
        (["1", 1], False),
        ([None], False),
        ([10**400], False),
    ],
)
def test_what_is_a_finite_number(values, whether):
    assert finite(values) is whether


BASE = (10.0, 20.0, 30.0, 60.0)  # 20 x 40


@pytest.mark.parametrize(
    "other, expected",
    [
        (BASE, 1.0),
        ((10.0, 20.0, 30.0, 40.0), 0.5),
        ((20.0, 20.0, 40.0, 60.0), 400 / 1200),
        ((25.0, 50.0, 45.0, 70.0), 50 / (800 + 400 - 50)),
        ((15.0, 25.0, 20.0, 30.0), 25 / 800),  # inside
        ((5.0, 30.0, 35.0, 35.0), 100 / (800 + 150 - 100)),  # across
        ((30.0, 20.0, 50.0, 60.0), 0.0),  # touching, on each side
        ((10.0, 60.0, 30.0, 80.0), 0.0),
        ((-10.0, 20.0, 10.0, 60.0), 0.0),
        ((10.0, 0.0, 30.0, 20.0), 0.0),
        ((40.0, 70.0, 50.0, 90.0), 0.0),  # apart on both axes
        ((30.0, 20.0, 10.0, 60.0), 0.0),  # inverted, on each axis
        ((10.0, 60.0, 30.0, 20.0), 0.0),
        ((30.0, 60.0, 10.0, 20.0), 0.0),
        ((20.0, 20.0, 20.0, 60.0), 0.0),  # without area
        ((10.0, 30.0, 30.0, 30.0), 0.0),
        ((10.0, 20.0, math.inf, 60.0), 0.0),
        ((-math.inf, 20.0, 30.0, 60.0), 0.0),
        ((10.0, math.nan, 30.0, 60.0), 0.0),
    ],
)
def test_iou_by_hand(other, expected):
    assert pair_iou(BASE, other) == pair_iou(other, BASE) == pytest.approx(expected, abs=0)
    assert (
        iou_matrix([BASE], [other])[0, 0]
        == iou_matrix([other], [BASE])[0, 0]
        == pytest.approx(expected, abs=0)
    )
    beside = [BASE, other, (0.0, 0.0, 1.0, 1.0)]
    assert iou_matrix(beside, beside).tolist() == [[pair_iou(a, b) for b in beside] for a in beside]
    assert (
        best_iou([other, BASE], [(0.0, 0.0, 1.0, 1.0), BASE, (11.0, 20.0, 30.0, 60.0)], block=1).tolist()[1]
        == 1.0
    )
    assert best_iou([other], [(0.0, 0.0, 1.0, 1.0), BASE]) == [pytest.approx(expected, abs=0)]


def reference_iou(a, b):
    """IoU written out for one pair."""
    if not all(map(math.isfinite, (*a, *b))) or a[2] <= a[0] or a[3] <= a[1] or b[2] <= b[0] or b[3] <= b[1]:
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = width * height if width > 0 and height > 0 else 0.0
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


COORDINATE = st.integers(-20, 20).map(float) | st.sampled_from([math.nan, math.inf])
PROPER = st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
# Boxes that overlap as often as not, and anything.
ROWS = st.lists(PROPER | st.tuples(*[COORDINATE] * 4), max_size=5)


@given(ROWS, ROWS)
def test_iou_matrix_agrees_with_the_naive_one(a, b):
    matrix = iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b)) and matrix.dtype == np.float64
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            assert matrix[i, j] == pytest.approx(reference_iou(first, second))


@given(ROWS, ROWS, st.integers(1, 3))
def test_the_best_iou_is_the_row_s_largest_in_blocks_of_any_size(a, b, block):
    assert best_iou(a, b, block).tolist() == [max(row, default=0.0) for row in iou_matrix(a, b).tolist()]


@given(ROWS)
def test_iou_is_one_with_itself_and_symmetric(rows):
    matrix = iou_matrix(rows, rows)
    assert np.array_equal(matrix, matrix.T)
    assert ((np.diag(matrix) == 1.0) | (np.diag(matrix) == 0.0)).all()


def test_iou_knows_no_plus_one():
    space = Space.pixels(20, 20)
    assert iou(Box(0, 0, 2, 2, space), Box(1, 0, 3, 2, space)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "corners, size",
    [
        ((30, 5, 0, 40), "small"),
        ((300, 300, 0, 0), "small"),
        ((0, 0, math.nan, 40), "small"),
        ((-1e308, -1e308, 1e308, 1e308), "large"),
        ((0, 0, math.inf, math.inf), "large"),
    ],
)
def test_a_box_that_nobody_can_draw_has_a_size_too(corners, size):
    assert size_of(Box(*corners, Space.pixels(640, 640))) == size


@pytest.mark.parametrize(
    "side, size",
    [(1, "small"), (31.99, "small"), (32, "medium"), (95.99, "medium"), (96, "large"), (500, "large")],
)
def test_a_box_of_exactly_coco_s_edge_is_of_the_larger_size(side, size):
    assert size_of(Box(7, 9, 7 + side, 9 + side, Space.pixels(640, 640))) == size
