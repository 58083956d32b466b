"""Prompt variants and the way back from a crop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.formats import FAMILIES, box_format, ferret, llava
from spr_plugin.formats.listed import ListedFormat
from spr_plugin.recipes.spr.prompts import crop_corners, prompts_for, restate
from spr_plugin.recipes.spr.regions import region_query

KINDS = ("plain", "crop", "reference")


def query(region=(100.4, 50.2, 300.5, 149.6), size=(640, 480), labels=("red circle", "orange ring")):
    space = Space.pixels(*size)
    boxes = [(100.4, 50.2, 200, 149.6), (220, 60, 300.5, 100)]
    annotations = tuple(
        Annotation(n, label, Box(*box, space)) for n, (label, box) in enumerate(zip(labels, boxes))
    )
    return region_query(AnnotatedImage("7", "/a.jpg", *size, annotations), Box(*region, space), 0)


def test_llava_prompts_read_as_agreed():
    plain, crop, reference = prompts_for(query(), llava("square"), KINDS)
    assert (
        plain.text == "Describe the objects in the region [0.16, 0.1, 0.47, 0.31] with their bounding boxes."
    )
    assert crop.text == "Describe the objects in the image with their bounding boxes."
    assert (
        reference.text
        == "The region [0.16, 0.1, 0.47, 0.31] contains a red circle [0.16, 0.1, 0.31, 0.31], an orange ring"
        " [0.34, 0.12, 0.47, 0.21]. Describe the objects in the region with their bounding boxes."
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
    [
        ((-5, -5, 700, 500), (0, 0, 640, 480)),
        ((10, 10, 10, 10), (10, 10, 11, 11)),
        ((640, 480, 640, 480), (639, 479, 640, 480)),
    ],
)
def test_crops_lie_on_the_picture_and_are_never_empty(region, corners):
    assert crop_corners(Box(*region, Space.pixels(640, 480))) == corners


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_s_own_boxes_are_read_back_and_nothing_else(family):
    """Also where the family's words show what a box looks like."""
    form, asked = box_format(family), query()
    plain, crop, reference = prompts_for(asked, form, KINDS)
    if not isinstance(form, ListedFormat):  # a JSON family reads entries; its prompt's region is bare numbers
        assert [len(form.parse(prompt.text, 640, 480).boxes) for prompt in (plain, crop, reference)] == [
            1,
            0,
            3,
        ]
    assert not any(form.parse(prompt.text, 640, 480).failures for prompt in (plain, crop, reference))


def test_families_are_asked_in_their_own_words():
    ask = {family: prompts_for(query(), box_format(family), ["crop"])[0].text for family in FAMILIES}
    assert (
        ask["cogvlm"]
        == "Describe the objects in the image and include the coordinates [[x0,y0,x1,y1]] for each mentioned"
        " object."
    )
    assert (
        ask["qwen3-vl"]
        == ask["qwen2.5-vl"]
        == "Describe the objects in the image and report their bbox coordinates and labels in JSON format."
    )
    assert (
        ask["kosmos-2"] == "<grounding>" + ask["llava"]
        and ask["ferret"] == ask["llava"] == "Describe the objects in the image with their bounding boxes."
    )


# How far a number of a family may be from what was written, in its own unit.
ROUNDING = {"llava": 0.005, "shikra": 0.0005, "qwen2.5-vl": 0.5, "qwen3-vl": 0.5}
FORMATS = [llava("square"), *map(box_format, FAMILIES)]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.family}-{form.aspect}")
@given(
    size=st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    region=st.tuples(*[st.floats(0, 1)] * 4),
    object=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_seen_in_the_crop_comes_back_where_it_is(form, size, region, object):
    """Project a box of the picture into the crop, write it as a model would, restate it: the same box within
    rounding.
    """
    x1, x2 = sorted(region[:2])
    y1, y2 = sorted(region[2:])
    asked = query(region=(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]), size=size)
    [prompt] = prompts_for(asked, form, ["crop"])
    left, top, right, bottom = prompt.crop
    width, height = right - left, bottom - top
    (u1, u2), (v1, v2) = sorted(object[:2]), sorted(object[2:])
    in_crop = Box(u1 * width, v1 * height, u2 * width, v2 * height, Space.pixels(width, height))
    text = restate(form.render([("a dog", in_crop)]), prompt, asked, form)
    [read] = form.parse(text, *size).boxes
    # One rounding in the crop's numbers, and one in the whole picture's.
    units = [a + b for a, b in zip(form.space(width, height).scale, form.space(*size).scale)] * 2
    for value, wanted, unit, start in zip(read.pixels(), in_crop.pixels(), units, (left, top) * 2):
        assert abs(value - (wanted + start)) <= ROUNDING.get(form.family, 1.0) * unit + 1e-3


def test_restating_changes_crop_answers_only_and_their_coordinates_only():
    asked, form = query(), llava("square")
    plain, crop, reference = prompts_for(asked, form, KINDS)
    text = "A dog [0.0, 0.0, 1.0, 1.0] and [0.0, 0.0, 0.5, 1.0], a cat [0.1, 0.2] [2, 3, 4, 5]."
    assert restate(text, plain, asked, form) == restate(text, reference, asked, form) == text
    assert (
        restate(text, crop, asked, form)
        == "A dog [0.16, 0.1, 0.47, 0.31] and [0.16, 0.1, 0.31, 0.31], a cat [0.1, 0.2] [2, 3, 4, 5]."
    )


def test_what_is_off_the_crop_never_becomes_a_box_of_the_picture():
    """Qwen2.5-VL counts pixels: a box that leaves the crop would lie somewhere on the whole picture."""
    form, asked = box_format("qwen2.5-vl"), query(size=(1200, 900))
    _, crop, _ = prompts_for(asked, form, KINDS)
    text = (
        '[{"bbox_2d": [10, 10, 60, 60], "label": "a dog"}, {"bbox_2d": [500, 500, 700, 800], "label": "a'
        ' cat"}]'
    )
    left, top, right, bottom = crop.crop
    assert form.parse(text, right - left, bottom - top).failures == {"out_of_range": 1}
    [box] = form.parse(restate(text, crop, asked, form), 1200, 900).boxes
    assert box.pixels()[0] < right and box.pixels()[3] < bottom
