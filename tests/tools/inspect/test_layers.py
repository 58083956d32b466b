"""Where boxes lie over a picture: the exact box is exact, and lines of different kinds lie side by side."""

from itertools import combinations

import pytest

from spr_plugin.recipes.base import Mark
from spr_plugin.tools.inspect.layers import KINDS, LINE, WIDTH, drawn

SIZES = [(640, 480), (33, 2000)]


@pytest.mark.parametrize("xyxy", [(64.0, 48.0, 320.0, 240.0), (320.0, 240.0, 64.0, 48.0)])
def test_a_box_lies_where_it_is_in_thousandths_of_the_width(xyxy):
    (box,) = drawn([Mark("written", xyxy, name="cup", spans=((0, 3),))], "said", SIZES, "a1-")
    assert box.exact == (100.0, 75.0, 400.0, 300.0) and box.xyxy == xyxy
    assert (box.key, box.label, box.name, box.spans) == ("a1-said-1", "S1", "cup", ((0, 3),))
    (tall,) = drawn([Mark("written", (0, 0, 33, 2000), 1)], "chosen", SIZES)
    assert tall.exact == (0.0, 0.0, WIDTH, pytest.approx(WIDTH * 2000 / 33, abs=0.001))


def test_one_box_of_every_kind_hides_none():
    """Lines that are as thick as LINE do not overlap; truth, region and detector, which share a place, differ
    in letters, dashes and what they can be."""
    same = (100.0, 100.0, 400.0, 300.0)
    written = [
        drawn([Mark("written", same)], kind, SIZES)[0] for kind in "said repaired chosen rejected".split()
    ]
    written += drawn([Mark("truth", same)], "", SIZES, written=False)
    for one, other in combinations(written, 2):
        assert abs(one.line[0] - other.line[0]) >= LINE and one.exact == other.exact
    assert len({how.letter for how in KINDS.values()}) == len(KINDS)


def test_a_line_inwards_leaves_a_small_box_a_box():
    for side in (0.0, 0.5, 2.0):
        (box,) = drawn([Mark("written", (10, 10, 10 + side, 10 + side))], "repaired", SIZES)
        assert box.line[2] >= 0 and box.line[3] >= 0 and box.exact[2] == pytest.approx(side / 0.64, abs=0.001)


def test_numbers_count_by_kind_and_an_unknown_kind_is_drawn_as_what_is_asked_about():
    marks = [Mark("region", (0, 0, 9, 9)), Mark("truth", (0, 0, 5, 5)), Mark("lab", (1, 1, 2, 2))]
    around = drawn([*marks, Mark("written", (1, 1, 2, 2))], "", SIZES, written=False)
    assert [box.label for box in around] == ["Q1", "T1", "Q2"]


def test_labels_of_equal_boxes_stand_side_by_side_on_the_picture():
    boxes = drawn([Mark("written", (0, 0, 640, 480))] * 3, "chosen", SIZES)
    assert len({box.at for box in boxes}) == 3
    assert all(0 <= box.at[0] <= WIDTH and 0 <= box.at[1] <= 750 for box in boxes)
