"""Prompt variants and the way back from a crop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.annotations import AnnotatedImage, Annotation
from spr_plugin.boxes import Box, Space
from spr_plugin.formats import cogvlm, ferret, llava, shikra
from spr_plugin.prompts import crop_corners, prompts_for, restate
from spr_plugin.regions import region_query

KINDS = ("plain", "crop", "reference")


def query(region=(100.4, 50.2, 300.5, 149.6), size=(640, 480), labels=("red circle", "orange ring")):
    space = Space.pixels(*size)
    boxes = [(100.4, 50.2, 200, 149.6), (220, 60, 300.5, 100)]
    annotations = tuple(Annotation(n, label, Box(*box, space)) for n, (label, box) in enumerate(zip(labels, boxes)))
    return region_query(AnnotatedImage("7", "/a.jpg", *size, annotations), Box(*region, space), 0)


def test_llava_prompts_read_as_agreed():
    plain, crop, reference = prompts_for(query(), llava("square"), KINDS)
    assert plain.text == "Describe the objects in the region [0.16, 0.1, 0.47, 0.31] with their bounding boxes."
    assert crop.text == "Describe the objects in the image with their bounding boxes."
    assert reference.text == (
        "The region [0.16, 0.1, 0.47, 0.31] contains a red circle [0.16, 0.1, 0.31, 0.31], an orange ring [0.34, 0.12, 0.47, 0.21]. "
        "Describe the objects in the region with their bounding boxes."
    )
    assert [prompt.kind for prompt in (plain, crop, reference)] == list(KINDS)
    assert (plain.crop, crop.crop, reference.crop) == (None, (100, 50, 301, 150), None)


def test_another_family_says_the_same_in_its_own_box_text():
    [plain] = prompts_for(query(), ferret(), ["plain"])
    assert plain.text == "Describe the objects in the region [156, 104, 469, 311] with their bounding boxes."


def test_labels_keep_their_own_determiner_and_any_characters():
    [reference] = prompts_for(query(labels=("the {old} man", "two dogs")), ferret(), ["reference"])
    assert "contains the {old} man [" in reference.text and ", two dogs [" in reference.text


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="upside_down"):
        prompts_for(query(), llava(), ["plain", "upside_down"])


@pytest.mark.parametrize(
    ("region", "corners"),
    [((-5, -5, 700, 500), (0, 0, 640, 480)), ((10, 10, 10, 10), (10, 10, 11, 11)), ((640, 480, 640, 480), (639, 479, 640, 480))],
)
def test_crops_lie_on_the_picture_and_are_never_empty(region, corners):
    assert crop_corners(Box(*region, Space.pixels(640, 480))) == corners


FORMATS = [llava("pad"), llava("square"), ferret(), shikra(), cogvlm()]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.family}-{form.aspect}")
@given(
    size=st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    region=st.tuples(*[st.floats(0, 1)] * 4),
    object=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_seen_in_the_crop_comes_back_where_it_is(form, size, region, object):
    """Project a box of the picture into the crop, write it as a model would, restate it: the same box within rounding."""
    x1, x2 = sorted(region[:2])
    y1, y2 = sorted(region[2:])
    asked = query(region=(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]), size=size)
    [prompt] = prompts_for(asked, form, ["crop"])
    left, top, right, bottom = prompt.crop
    width, height = right - left, bottom - top
    (u1, u2), (v1, v2) = sorted(object[:2]), sorted(object[2:])
    in_crop = Box(u1 * width, v1 * height, u2 * width, v2 * height, Space.pixels(width, height))
    text = restate(f"a dog {form.write(in_crop)}.", prompt, asked, form)
    [read] = form.parse(text, *size).boxes
    # One step of the crop's numbers, and one of the whole picture's.
    step = 1 / 1000 if form.bins else 10.0**-form.decimals / 2
    sides = (max(size), max(width, height)) if form.space_name == "padded_square" else None
    for value, wanted, whole, part, start in zip(
        read.pixels(), in_crop.pixels(), (*size, *size), (width, height) * 2, (left, top) * 2
    ):
        whole, part = sides or (whole, part)
        assert abs(value - (wanted + start)) <= step * (whole + part) + 1e-3


def test_restating_changes_crop_answers_only_and_their_coordinates_only():
    asked, form = query(), llava("square")
    plain, crop, reference = prompts_for(asked, form, KINDS)
    text = "A dog [0.0, 0.0, 1.0, 1.0] and [0.0, 0.0, 0.5, 1.0], a cat [0.1, 0.2] [2, 3, 4, 5]."
    assert restate(text, plain, asked, form) == restate(text, reference, asked, form) == text
    assert restate(text, crop, asked, form) == "A dog [0.16, 0.1, 0.47, 0.31] and [0.16, 0.1, 0.31, 0.31], a cat [0.1, 0.2] [2, 3, 4, 5]."
