"""Families that write brackets."""

import pytest

from spr_plugin.boxes import Box
from spr_plugin.formats import ferret, llava, shikra


def test_llava_drops_trailing_zeros_and_keeps_one():
    form = llava("square")
    assert form.write(Box(0, 0.4, 1, 0.999, form.space(50, 50))) == "[0.0, 0.4, 1.0, 1.0]"


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("a dog [0.1, 0.2, 0.3]", {"malformed": 1}),
        ("a dog [0.1, 0.2, 0.3, 0.4, 0.5]", {"malformed": 1}),
        ("a dog [0.1, 0.2, 0.3, 0.4.5]", {"malformed": 1}),
        ("a dog [0.1, 0.2, cat, 0.4]", {"malformed": 1}),
        ("a dog [[0.1, 0.2, 0.3, 0.4]]", {"malformed": 1}),
        ("a dog [0.1, 0.2, nan, 0.4]", {"malformed": 1}),
        ("a dog [0.1, 0.2, " + "9" * 400 + ", 0.4]", {"malformed": 1}),
        ("a dog [0.5, 0.2, 0.3, 0.4]", {"inverted": 1}),
        ("a dog [120, 300, 550, 810]", {"out_of_range": 1}),
        ("a dog [-0.1, 0.2, 0.3, 0.4]", {"out_of_range": 1}),
        ("a dog [0.1, 0.2, 0.", {"truncated": 1}),
        ("a dog [", {"truncated": 1}),
        ("a dog [0.1, 0.2, a cat [0.1, 0.2, 0.3, 0.", {"malformed": 1, "truncated": 1}),
        ("a dog [see note] and [1] and [ and ]", {}),
        ("", {}),
    ],
)
def test_what_cannot_be_read_is_counted(text, failures):
    parsed = llava().parse(text, 640, 480)
    assert parsed.failures == failures and parsed.boxes == ()
    assert len(parsed.failed_spans) == sum(failures.values())


def test_integer_families_take_no_decimals():
    assert ferret().parse("[0.1, 0.2, 0.3, 0.4]", 10, 10).failures == {"malformed": 1}


def test_a_shikra_bracket_may_hold_several_boxes():
    form, text = shikra(), "two dogs [0.100,0.200,0.300,0.400;0.500,0.500,0.600,0.900]."
    parsed = form.parse(text, 100, 100)
    assert [len(mention.boxes) for mention in parsed.mentions] == [2]
    assert form.rewrite(text, parsed, {0: None}) == "two dogs [0.500,0.500,0.600,0.900]."
    assert (
        form.rewrite(text, parsed, {1: parsed.boxes[0]})
        == "two dogs [0.100,0.200,0.300,0.400;0.100,0.200,0.300,0.400]."
    )
    assert form.rewrite(text, parsed, {0: None, 1: None}) == "two dogs."
