"""Box text of the nine families, as each writes it and reads it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.errors import UserError
from spr_plugin.formats import (
    FAMILIES,
    box_format,
    cogvlm,
    ferret,
    internvl,
    kosmos2,
    llava,
    qwen2_5_vl,
    qwen3_vl,
    qwen_vl,
    shikra,
)
from tests.formats.written import SIZES, every_format

# How far a number may be from what was written, in the family's unit: a whole bin where it cuts, half of one
# where it rounds.
ROUNDING = {"llava": 0.005, "shikra": 0.0005, "qwen2.5-vl": 0.5, "qwen3-vl": 0.5}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (llava("pad"), "[0.25, 0.31, 0.5, 0.67]"),
        (llava("square"), "[0.25, 0.25, 0.5, 0.73]"),
        (ferret(), "[250, 250, 500, 729]"),
        (shikra(), "[0.250,0.312,0.500,0.672]"),
        (cogvlm(), "[[250,250,500,729]]"),
        (qwen_vl(), "<box>(249,249),(499,728)</box>"),
        (internvl(), "<box>[[250, 250, 500, 729]]</box>"),
        (kosmos2(), "<object><patch_index_0264><patch_index_0751></object>"),
        (qwen2_5_vl(), "[161, 119, 322, 347]"),
        (qwen3_vl(), "[250, 250, 500, 729]"),
    ],
)
def test_each_family_writes_as_its_training_data_does(form, text):
    assert form.write(Box(160, 120, 320, 350, Space.pixels(640, 480))) == text


@every_format
def test_boxes_beyond_the_range_are_written_at_its_end(form):
    text = form.render([("", Box(-50, -50, 900, 900, Space.pixels(640, 480)))])
    [box] = form.parse(text, 640, 480).boxes
    last = {
        "llava": 1,
        "shikra": 1,
        "qwen3-vl": 1000,
        "internvl": 1000,
        "kosmos-2": 31.5,
        "qwen2.5-vl": 644,
    }.get(form.family, 999)
    assert min(box.xyxy) == (0.5 if form.family == "kosmos-2" else 0) and max(box.xyxy) == last


@every_format
@given(size=SIZES, corners=st.tuples(*[st.floats(0, 1)] * 4))
def test_parse_of_render_is_the_box_within_its_rounding(form, size, corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = Box(x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1], Space.pixels(*size))
    [read] = form.parse(form.render([("a dog", box)]), *size).boxes
    bound = ROUNDING.get(form.family, 1.0)
    assert form.rounding == bound
    for value, wanted in zip(read.xyxy, box.to(form.space(*size)).xyxy):
        assert abs(value - wanted) <= bound + 1e-6


def test_box_format_asks_the_hook():
    assert box_format("llava", "square") == llava("square")
    assert box_format("shikra") == shikra()
    assert {box_format(family).family for family in FAMILIES} == FAMILIES.keys()
    with pytest.raises(UserError, match="--spr_box_format nobody"):
        box_format("nobody")
