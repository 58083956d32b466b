"""Boxes and their coordinate spaces."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space, best_iou, iou, iou_matrix

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


def test_another_picture_and_mixed_spaces_are_refused():
    box = Box(0, 0, 1, 1, Space.normalized(640, 480))
    with pytest.raises(ValueError, match="640x480"):
        box.to(Space.pixels(480, 640))
    with pytest.raises(ValueError, match="normalized"):
        iou(box, box.to(Space.pixels(640, 480)))
    with pytest.raises(ValueError, match="0 x 480"):
        Space.pixels(0, 480)


@given(spaces(), st.data())
def test_conversions_compose(space, data):
    """By way of any other space of the picture a box arrives where it arrives directly."""
    width, height = space.width, space.height
    ways = [Space.normalized(width, height), Space.padded_square(width, height), Space.grid(width, height, 999), Space.resized(width, height, 28, 56)]
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


def reference_iou(a, b):
    """IoU written out for one pair."""
    if not all(map(math.isfinite, (*a, *b))) or a[2] <= a[0] or a[3] <= a[1] or b[2] <= b[0] or b[3] <= b[1]:
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = width * height if width > 0 and height > 0 else 0.0
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


COORDINATE = st.integers(-20, 20).map(float) | st.sampled_from([math.nan, math.inf])
ROWS = st.lists(st.tuples(*[COORDINATE] * 4), max_size=5)


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
