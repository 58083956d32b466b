"""Region queries: growth, membership, seeds."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.recipes.spr.regions import RegionQuery, grow_region, members, region_queries, region_query

SPACE = Space.pixels(200, 100)


# (picture, region, seed, id) as drawn once; a change here changes every user's regions.
GOLDEN = [
    ("a", (0, 10, 45, 15), 222051081725560138, "3119298b792adc49"),
    ("b", (0, 10, 45, 15), 307204742763017185, "5ddb0117aae2fefb"),
    ("b", (20, 10, 65, 15), 916585414806525029, "d17b984186b5d510"),
]


def image(boxes, id="7", ids=None):
    annotations = tuple(
        Annotation(name, f"thing {name}", Box(*box, SPACE))
        for name, box in zip(ids or range(len(boxes)), boxes)
    )
    return AnnotatedImage(id, f"/somewhere/{id}.jpg", 200, 100, annotations)


def row_of_squares(count):
    return [(10 * index, 10, 10 * index + 5, 15) for index in range(count)]


BOXES = st.tuples(st.integers(0, 180), st.integers(0, 80), st.integers(1, 20), st.integers(1, 20)).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)


@given(st.lists(BOXES, max_size=12), st.integers(0, 5), st.integers(1, 5))
def test_a_region_holds_more_than_asked_and_every_member_is_a_union(boxes, seed, more_than):
    picture = image(boxes)
    region = grow_region(picture, random.Random(seed), more_than)
    assert (region is None) == (len(boxes) <= more_than)
    if region is not None:
        assert len(members(picture, region)) > more_than
        # The region is the union of annotated boxes: each of its sides is a side of one of them.
        for side, corner in enumerate(region.xyxy):
            assert corner in {box[side] for box in boxes}


@given(st.lists(BOXES, min_size=5, max_size=12), st.integers(0, 5), st.randoms())
def test_the_order_of_annotations_does_not_matter_to_growth(boxes, start, shuffler):
    """From one start, only distances and ids decide."""
    ids = list(range(len(boxes)))
    mixed = list(zip(ids, boxes))
    shuffler.shuffle(mixed)
    first = min(start, len(boxes) - 1)

    class Chooser:
        def choice(self, annotations):
            return next(annotation for annotation in annotations if annotation.id == first)

    shuffled = image([box for _, box in mixed], ids=[name for name, _ in mixed])
    assert grow_region(image(boxes), Chooser()) == grow_region(shuffled, Chooser())


def test_growth_merges_the_nearest_by_edges_then_centres_then_id():
    class First:
        def choice(self, annotations):
            return annotations[0]

    start, far = (50, 50, 60, 60), (100, 50, 101, 60)
    # Edge distance decides: the long box is 5 away though its centre is farther than the small box's, 8 away.
    long_box, small = (65, 50, 95, 60), (50, 68, 60, 70)
    assert grow_region(image([start, small, long_box, far]), First(), 1).xyxy == (50, 50, 95, 60)
    # Equal edge distance: centre distance decides.
    near_centre = (65, 50, 67, 60)
    assert grow_region(image([start, long_box, near_centre, far]), First(), 1).xyxy == (50, 50, 67, 60)
    # Equal both: the lower id; numbers go before text.
    left, right = (43, 50, 45, 60), (65, 50, 67, 60)
    assert grow_region(image([start, right, left], ids=[9, 8, 3]), First(), 1).xyxy == (43, 50, 60, 60)
    assert grow_region(image([start, right, left], ids=["z", "a", 300]), First(), 1).xyxy == (43, 50, 60, 60)


def test_membership_needs_half_of_the_area():
    picture = image([(0, 0, 10, 10), (5, 0, 15, 10), (6, 0, 16, 10)])
    assert [a.id for a in members(picture, Box(0, 0, 10, 10, SPACE))] == [0, 1]


def queries(images, **options):
    skipped = Counter()
    options = {"seed": 3, "regions_per_image": 2, "more_than": 4, "limit": None, **options}
    return list(region_queries(images, skipped=skipped, **options)), skipped


@pytest.mark.parametrize("apart", [(100, 5, 100.01, 5.01), (5, 90, 5.01, 90.01)], ids=["right", "below"])
def test_a_tiny_box_beside_the_region_is_no_member(apart):
    """Widths and heights that do not meet count as none, however small half of the box is."""
    assert members(image([apart]), Box(0, 0, 10, 10, SPACE)) == ()


def test_queries_hold_their_truth_and_survive_json():
    [query, *_], _ = queries([image(row_of_squares(9))])
    assert query.truth == members(query.image, query.region)
    assert RegionQuery.from_record(json.loads(json.dumps(query.to_record()))) == query


def test_a_seed_gives_the_same_queries_on_every_machine():
    made, _ = queries([image(row_of_squares(12), id=name) for name in ("a", "b")])
    assert [(query.image.id, query.region.xyxy, query.seed, query.id) for query in made] == GOLDEN
    other, _ = queries([image(row_of_squares(12))], seed=4)
    assert {query.id for query in other}.isdisjoint(query.id for query in made)


def test_ids_do_not_depend_on_where_the_pictures_lie():
    one = image(row_of_squares(6))
    moved = AnnotatedImage(one.id, "/elsewhere.jpg", one.width, one.height, one.annotations)
    region = Box(0, 0, 60, 60, SPACE)
    assert region_query(one, region, 1).id == region_query(moved, region, 1).id
    assert region_query(one, region, 1).id != region_query(one, region, 2).id


def test_every_picture_left_out_is_counted():
    made, skipped = queries([image(row_of_squares(4)), image(row_of_squares(5), id="8"), image([], id="9")])
    # Five objects in a row have one region; the second try finds it again.
    assert len(made) == 1 and skipped == {"too_few_objects": 2, "same_region": 1}


def test_a_limit_takes_a_seeded_choice_not_the_first_pictures():
    images = [image(row_of_squares(8), id=str(number)) for number in range(40)]
    first, _ = queries(images, limit=10, regions_per_image=1)
    assert len(first) == 10
    chosen = {query.image.id for query in first}
    assert chosen != {str(number) for number in range(10)}
    again, _ = queries(images[::-1], limit=10, regions_per_image=1)
    assert again == first
    more, _ = queries(images, limit=15, regions_per_image=1)
    assert more[:10] == first


class First:
    """Chance that starts every region at the first object."""

    def choice(self, things):
        return things[0]


START = (50, 40, 60, 50)


@pytest.mark.parametrize(
    "near, far",
    [
        ((62, 40, 72, 50), (50, 53, 60, 63)),  # 2 to the right, 3 below
        ((63, 40, 73, 50), (50, 26, 60, 36)),  # 3 to the right, 4 above
        ((37, 40, 47, 50), (64, 40, 74, 50)),  # 3 to the left, 4 to the right
        ((50, 28, 60, 38), (37, 40, 47, 50)),  # 2 above, 3 to the left
        ((50, 52, 60, 62), (63, 53, 73, 63)),  # 2 below, 3 and 3 at a corner
        ((64.9, 40, 74, 50), (63, 54, 73, 64)),  # 4.9 beside, 3 and 4 at a corner: 24.01 and 25
        ((64, 40, 74, 50), (63, 53, 73, 63)),  # 4 beside, 3 and 3 at a corner: 16 and 18
        ((65, 42, 69, 48), (50, 55, 60, 75)),  # 5 each; centres 12 and 20 away
        ((50, 55, 60, 59), (65, 40, 85, 50)),  # 5 each; centres 12 and 20 away
        ((60, 45, 70, 55), (60, 50, 66, 62)),  # both touch; centres 10, 5 and 8, 11 away: 125 and 185
        ((40, 45, 50, 55), (44, 28, 50, 40)),  # both touch; centres 10, 5 and 8, 11 away
        ((60, 36, 70, 44), (56, 50, 66, 64)),  # both touch; centres 10, 5 and 6, 12 away: 125 and 180
        ((65, 40, 75, 50), (65, 40, 75, 50)),  # alike: the lower id
    ],
)
def test_a_region_takes_the_nearest_object_by_edges_then_centres_then_id(near, far):
    whole = (min(START[0], near[0]), min(START[1], near[1]), max(START[2], near[2]), max(START[3], near[3]))
    assert grow_region(image([START, near, far]), First(), more_than=1).xyxy == whole
    if near != far:
        assert grow_region(image([START, far, near]), First(), more_than=1).xyxy == whole


def test_by_default_a_region_holds_five_objects():
    for count, grown in ((4, False), (5, True), (9, True)):
        region = grow_region(image(row_of_squares(count)), First())
        assert (region is not None) == grown and (
            not grown or len(members(image(row_of_squares(count)), region)) == 5
        )
        assert len(list(region_queries([image(row_of_squares(count))], seed=0, skipped=Counter()))) == grown
