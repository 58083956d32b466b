"""What a scan collects: nothing raises, time is linear, and each that cannot be read is a failure."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.formats import cogvlm, ferret, internvl, qwen2_5_vl, qwen3_vl, qwen_vl
from spr_plugin.formats.reading import checked, end_of, parts, whole_number
from tests.formats.written import answer, every_format

PIECES = st.sampled_from(
    list("[]()0123456789.,;- \n")
    + ["[0.1, 0.2, 0.3, 0.4]", " and ", "dog", "[[1,2,3,4]]", "[1, 2,", "é", "<box>"]
    + ["</box>", "<ref>", "</ref>", "(1,2),(3,4)", "<object>", "</object>", "<patch_index_0044>"]
    + ['{"bbox_2d": [1, 2, 3, 4], "label": "a {b}"}', "{", "}", '"', '"bbox_2d":']
)


@every_format
@given(text=st.lists(PIECES, max_size=30).map("".join))
def test_parse_never_raises_and_its_spans_are_in_order(form, text):
    parsed = form.parse(text, 640, 480)
    spans = sorted([mention.span for mention in parsed.mentions] + list(parsed.failed_spans))
    assert all(0 <= start < end <= len(text) for start, end in spans)
    inside = [
        (a, b)
        for a in [m.span for m in parsed.mentions]
        for b in parsed.failed_spans
        if b[0] < a[1] and a[0] < b[1]
    ]
    assert inside == []
    assert form.words(text, parsed) is not None
    assert form.rewrite(text, parsed, {}) == text


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "[[",
        "]",
        "[1",
        "[1,",
        "[1, 2, 3, 4] ",
        "[ ",
        "[0.1, 0.2, 0.3, 0.4] and ",
        "1 ",
        " ",
        "a and ",
        "(",
        "[1;",
        "<box>",
        "<box>[[1, 2, 3, 4]]</box>",
        "<object>",
        "<ref>",
        "{",
        '{"',
        '{"bbox_2d": ',
        '{"bbox_2d": [1, 2, 3, 4]}, ',
    ],
)
@every_format
def test_time_is_linear(form, unit):
    """Ten times the text takes about ten times the steps; counted in Python lines, not in seconds."""
    import sys

    def steps(text):
        count = 0

        def tick(frame, event, argument):
            nonlocal count
            count += 1
            return tick

        sys.settrace(tick)
        try:
            parsed = form.parse(text, 640, 480)
            form.rewrite(text, parsed, dict.fromkeys(range(len(parsed.boxes))), drop_failures=True)
        finally:
            sys.settrace(None)
        return count

    assert steps(unit * 200) <= 14 * max(steps(unit * 20), 30)


def _corners(box):
    return "({},{}),({},{})".format(*(box + ",").split(","))


A, B, BAD, NAN, SHORT = (
    "100,200,300,400",
    "500,500,600,900",
    "100,200,300,1400",
    "100,nan,300,400",
    "100,200,300",
)


READ = {A: (100, 200, 300, 400), B: (500, 500, 600, 900)}


LISTED = {
    "cogvlm": (cogvlm(), lambda boxes: f"a dog [[{'],['.join(boxes)}]] runs."),
    "cogvlm's own": (cogvlm(), lambda boxes: f"a dog [[{';'.join(boxes)}]] runs."),
    "ferret": (ferret(), lambda boxes: f"a dog [[{'], ['.join(boxes)}]] runs."),
    "qwen2.5-vl": (qwen2_5_vl(), lambda boxes: f"a dog [[{'], ['.join(boxes)}]] runs."),
    "qwen3-vl": (qwen3_vl(), lambda boxes: f"a dog [[{'],['.join(boxes)}]] runs."),
    "internvl": (internvl(), lambda boxes: f"a <ref>dog</ref><box>[[{'], ['.join(boxes)}]]</box> runs."),
    "qwen-vl": (
        qwen_vl(),
        lambda boxes: f"a <ref>dog</ref><box>{','.join(map(_corners, boxes))}</box> runs.",
    ),
}


@pytest.mark.parametrize("unread", [BAD, NAN, SHORT])
@pytest.mark.parametrize("written", [(0, 1), (1, 0), (1, 2, 0), (2, 0, 1, 2)])
@pytest.mark.parametrize("listed", LISTED)
def test_one_of_a_list_that_cannot_be_read_is_a_failure_of_its_own(listed, written, unread):
    """The others stay, and the text loses its coordinates alone."""
    form, write = LISTED[listed]
    boxes = [(unread, A, B)[number] for number in written]
    text, size = write(boxes), (980, 980)  # of which Qwen2.5-VL sees each pixel
    parsed = form.parse(text, *size)
    assert [box.xyxy for box in parsed.boxes] == [READ[box] for box in boxes if box in READ]
    assert len(parsed.failed) == 1 and parsed.failed[0].phrase == "dog"
    assert (parsed.failed_spans[0] < parsed.mentions[0].spans[0]) == (written[0] == 0)
    assert form.rewrite(text, parsed, {}) == text
    left = form.rewrite(text, parsed, {}, drop_failures=True)
    again = form.parse(left, *size)
    assert again.boxes == parsed.boxes and not again.failed
    assert form.words(left, again) == form.words(text, parsed) == "a dog runs."


@pytest.mark.parametrize("listed", LISTED)
def test_a_list_that_cannot_be_read_at_all_goes_with_its_brackets(listed):
    form, write = LISTED[listed]
    parsed = form.parse(write([BAD, BAD]), 980, 980)
    assert not parsed.boxes and parsed.failures == {"out_of_range": 2} and parsed.failed[0].phrase == "dog"
    assert (
        form.rewrite(write([BAD, BAD]), parsed, {}, drop_failures=True).replace("<ref>dog</ref>", "dog")
        == "a dog runs."
    )


@every_format
@pytest.mark.parametrize("number", ["NaN", "nan", "Infinity", "-inf", "1e999", "9" * 400])
def test_what_is_no_finite_number_is_in_no_box(form, number):
    text = answer(form, [("dog", (100, 100, 900, 900))])
    spoilt = re.sub(r"(\d+(?:\.\d+)?)(?=[^\d]*$)", number, text, count=1)
    parsed = form.parse(spoilt, 1000, 1000)
    assert spoilt != text and not parsed.boxes and len(parsed.failed) == 1


@pytest.mark.parametrize(
    ("value", "step"), [(-3, 0), (0, 0), (4.999, 4), (4.9999999, 5), (5, 5), (9.4, 9), (10, 9), (1e9, 9)]
)
def test_a_whole_number_is_a_step_that_was_reached(value, step):
    assert whole_number(value, 9) == step


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ((0, 0, 8, 4), None),
        ((3, 2, 3, 2), None),
        ((float("nan"), 0, 8, 4), "malformed"),
        ((0, 0, float("inf"), 4), "malformed"),
        ((-0.1, 0, 8, 4), "out_of_range"),
        ((0, 0, 8.1, 4), "out_of_range"),
        ((0, 0, 8, 4.1), "out_of_range"),
        ((0, 4.1, 8, 4), "out_of_range"),
        ((5, 0, 4, 4), "inverted"),
        ((0, 3, 4, 2), "inverted"),
    ],
)
def test_four_numbers_are_a_box_or_have_a_reason(values, why):
    space = Space.pixels(8, 4)
    assert checked(values, (8, 4), space) == (why or Box(*values, space))


def test_parts_and_their_places():
    assert parts("[1;22;3]", 1, 7, ";") == [(1, 2), (3, 5), (6, 7)]
    assert parts("[1;22;3]", 1, 7, None) == [(1, 7)]
    assert parts("a--b", 0, 4, "--") == [(0, 1), (3, 4)]
    digits = re.compile(r"\d+")
    assert (end_of(digits, "a123", 1), end_of(digits, "a123", 0), end_of(digits, "a123", 1, 3)) == (4, 0, 3)


def test_a_corner_behind_a_corner_is_one_box():
    """Two pairs of numbers in brackets of their own, as some write them."""
    assert ferret().parse("a dog [1, 2], [3, 4].", 100, 100).failures == {"malformed": 1}
    assert ferret().parse("a dog [1, 2, 3], [4, 5, 6].", 100, 100).failures == {"malformed": 2}
