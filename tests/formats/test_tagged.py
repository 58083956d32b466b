"""Families that mark phrase and boxes with tags."""

import pytest

from spr_plugin.boxes import Box, Space
from spr_plugin.formats import internvl, kosmos2, qwen_vl


def test_a_marked_phrase_keeps_its_words_and_loses_its_tags():
    form = qwen_vl()
    text = (
        "There is <ref>a dog</ref><box>(120,300),(550,810)</box> near <ref>two"
        " cats</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>."
    )
    parsed = form.parse(text, 100, 100)
    assert [(mention.phrase, len(mention.boxes)) for mention in parsed.mentions] == [
        ("a dog", 1),
        ("two cats", 2),
    ]
    assert form.words(text, parsed) == "There is a dog near two cats."
    assert (
        form.rewrite(text, parsed, {0: None, 2: None})
        == "There is a dog near <ref>two cats</ref><box>(1,2),(3,4)</box>."
    )


@pytest.mark.parametrize(
    ("form", "text", "failures"),
    [
        (qwen_vl(), "<box>(1,2),(3)</box>", {"malformed": 1}),
        (qwen_vl(), "<box>(1,2),(3,4)", {"truncated": 1}),
        (qwen_vl(), "<box>(1,2), a dog <box>(1,2),(3,1000)</box>", {"malformed": 1, "out_of_range": 1}),
        (internvl(), "<box>[[5, 2, 3, 4]]</box>", {"inverted": 1}),
        (internvl(), "<box>[5, 2, 6, 4]</box>", {"malformed": 1}),
        (kosmos2(), "<object><patch_index_0044></object>", {"malformed": 1}),
        (kosmos2(), "<object><patch_index_0044><patch_index_1024></object>", {"out_of_range": 1}),
        (kosmos2(), "<object><patch_index_0863><patch_index_0044></object>", {"inverted": 1}),
    ],
)
def test_what_tags_get_wrong_is_counted(form, text, failures):
    assert form.parse(text, 640, 480).failures == failures


def test_cells_of_a_box_that_ends_at_their_edges():
    """A cell is a thirty-second of the picture; a box without a side is one cell."""
    form, space = kosmos2(), Space.pixels(320, 320)
    assert form.write(Box(0, 0, 20, 10, space)) == "<object><patch_index_0000><patch_index_0001></object>"
    assert form.write(Box(15, 15, 15, 15, space)) == "<object><patch_index_0033><patch_index_0033></object>"
    [row] = form.parse(form.write(Box(0, 0, 20, 10, space)), 320, 320).boxes
    assert row.pixels() == (0, 0, 20, 10)  # one row of cells, whole
    [centres] = form.parse(form.write(Box(0, 0, 20, 20, space)), 320, 320).boxes
    assert centres.pixels() == (5, 5, 15, 15)


def test_several_boxes_share_tags_where_the_family_does_so():
    boxes = [Box(0, 0, 10, 10, Space.pixels(100, 100)), Box(20, 20, 50, 50, Space.pixels(100, 100))]
    assert internvl().write_group(boxes) == "<box>[[0, 0, 100, 100], [200, 200, 500, 500]]</box>"
    assert qwen_vl().write_group(boxes) == "<box>(0,0),(99,99)</box><box>(199,199),(499,499)</box>"
