"""Where boxes lie over a picture: the exact box is exact, and lines of different kinds lie side by side."""

import random
from dataclasses import replace
from itertools import combinations

import pytest

from spr_plugin.recipes.base import Mark
from spr_plugin.tools.inspect.layers import KINDS, LETTER, LINE, WIDTH, _label, _share, apart, drawn

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


PICTURE = {"number": 0, "width": 640, "height": 480}


def overlaps(boxes):
    pairs = combinations(map(_label, boxes), 2)
    return sum(max(_share(one, other), _share(other, one)) > 0 for one, other in pairs)


def test_labels_of_all_texts_are_moved_apart_and_stay_on_the_picture():
    """Each text's boxes know nothing of the others', whose corners may be where theirs are."""
    rng = random  # which every test begins alike
    for _ in range(20):
        corner = lambda: (rng.choice((0, 100, 300)), rng.choice((0, 90, 200)))
        marks = [Mark("written", (x, y, x + 340, y + 280)) for x, y in (corner() for _ in range(4))]
        kinds = "said repaired chosen rejected".split()
        boxes = [box for kind in kinds for box in drawn(marks, kind, SIZES)]
        moved = apart(boxes, PICTURE)
        assert overlaps(moved) == 0 < overlaps(boxes)
        assert [(box.key, box.line, box.exact) for box in moved] == [
            (box.key, box.line, box.exact) for box in boxes
        ]
        for left, top, right, bottom in map(_label, moved):
            assert left >= -LETTER and right <= WIDTH + LETTER and top >= 0 and bottom <= 750


def test_a_label_alone_stays_where_it_is_and_what_is_hidden_at_first_gives_way():
    (chosen,), (repaired,) = (
        drawn([Mark("written", (10, 10, 90, 90))], kind, SIZES) for kind in ("chosen", "repaired")
    )
    assert apart([chosen], PICTURE) == [chosen]
    where = replace(repaired, at=chosen.at, right=chosen.right)
    first, second = apart([where, chosen], PICTURE)
    assert second == chosen and first.at != chosen.at
    assert apart([replace(chosen, picture=1)], PICTURE) == []


def test_more_labels_than_there_is_room_for_are_all_there():
    boxes = drawn([Mark("written", (0, 0, 5, 5))] * 300, "chosen", SIZES)
    assert [box.key for box in apart(boxes, PICTURE)] == [box.key for box in boxes]
