"""Box text of the nine families: reading, writing, rewriting."""

import json
import re

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
from spr_plugin.formats.listed import resized

SENTENCES = [llava("pad"), llava("square"), ferret(), shikra(), cogvlm(), qwen_vl(), internvl(), kosmos2()]
LISTS = [qwen2_5_vl(), qwen3_vl()]
FORMATS = SENTENCES + LISTS
every_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.family}-{form.aspect}")
SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
WORDS = st.sampled_from(["dog", "red circle", "man in black", "cup", "the old tree", "an elephant"])
STEPS = st.tuples(*[st.integers(0, 999)] * 4).map(
    lambda v: (*map(min, v[:2], v[2:]), *map(max, v[:2], v[2:]))
)


# How far a number may be from what was written, in the family's unit: a whole bin where it cuts, half of one
# where it rounds.
ROUNDING = {"llava": 0.005, "shikra": 0.0005, "qwen2.5-vl": 0.5, "qwen3-vl": 0.5}


def answer(form, rows, between=", ", size=(1000, 1000)):
    """Phrases with boxes, at thousandths of a picture of this size, as the family answers: prose, or a
    list.
    """
    boxes = [Box(*(value / 1000 for value in steps), Space.normalized(*size)) for _, steps in rows]
    if form in LISTS:
        return "Here they are:\n" + form.render([(phrase, box) for (phrase, _), box in zip(rows, boxes)])
    before, after = getattr(form, "phrase_tags", ("", " "))
    return (
        between.join(before + phrase + after + form.write(box) for (phrase, _), box in zip(rows, boxes)) + "."
    )


# --- writing


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


def test_llava_drops_trailing_zeros_and_keeps_one():
    form = llava("square")
    assert form.write(Box(0, 0.4, 1, 0.999, form.space(50, 50))) == "[0.0, 0.4, 1.0, 1.0]"


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


# --- reading


@every_format
@given(size=SIZES, rows=st.lists(st.tuples(WORDS, STEPS), min_size=1, max_size=5))
def test_rewriting_with_its_own_boxes_changes_nothing(form, size, rows):
    text = "A picture. " + answer(form, rows, size=size)
    parsed = form.parse(text, *size)
    assert len(parsed.boxes) == len(rows) and not parsed.failures
    assert form.rewrite(text, parsed, dict(enumerate(parsed.boxes))) == text
    through_pixels = {index: box.to(Space.pixels(*size)) for index, box in enumerate(parsed.boxes)}
    assert form.rewrite(text, parsed, through_pixels) == text


def test_phrases_and_spans():
    text = (
        "In the photo, a red circle [0.1, 0.2, 0.3, 0.4], the blue squares [0.5, 0.5, 0.6, 0.9] and [0.7,"
        " 0.1, 0.8, 0.2] and a green ring [0.5, 0.3, 0.7, 0.8]."
    )
    mentions = llava().parse(text, 100, 100).mentions
    assert [mention.phrase for mention in mentions] == ["red circle", "blue squares", "green ring"]
    assert [len(mention.boxes) for mention in mentions] == [1, 2, 1]
    for mention in mentions:
        assert text[slice(*mention.phrase_span)] == mention.phrase
        assert text[mention.span[0]] == "[" and text[mention.span[1] - 1] == "]"
        assert all(text[slice(*span)].startswith("[") for span in mention.spans)


def test_a_bare_box_has_an_empty_phrase():
    [mention] = llava().parse("[0.1, 0.2, 0.3, 0.4]", 10, 10).mentions
    assert mention.phrase == "" and mention.span == (0, 20)


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


# --- rewriting


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (
            [0],
            "A dog, two cats [0.5, 0.5, 0.6, 0.9] and [0.7, 0.1, 0.8, 0.2] and a cup ([0.2, 0.2, 0.4, 0.4]).",
        ),
        ([1], "A dog [0.1, 0.2, 0.3, 0.4], two cats [0.7, 0.1, 0.8, 0.2] and a cup ([0.2, 0.2, 0.4, 0.4])."),
        ([2], "A dog [0.1, 0.2, 0.3, 0.4], two cats [0.5, 0.5, 0.6, 0.9] and a cup ([0.2, 0.2, 0.4, 0.4])."),
        (
            [3],
            "A dog [0.1, 0.2, 0.3, 0.4], two cats [0.5, 0.5, 0.6, 0.9] and [0.7, 0.1, 0.8, 0.2] and a cup.",
        ),
        ([0, 1, 2, 3], "A dog, two cats and a cup."),
    ],
)
def test_removing_coordinates_leaves_a_sentence(gone, text):
    full = (
        "A dog [0.1, 0.2, 0.3, 0.4], two cats [0.5, 0.5, 0.6, 0.9] and [0.7, 0.1, 0.8, 0.2] and a cup ([0.2,"
        " 0.2, 0.4, 0.4])."
    )
    form = llava()
    assert form.rewrite(full, form.parse(full, 10, 10), dict.fromkeys(gone)) == text


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("[0.1, 0.2, 0.3, 0.4] is a dog.", "is a dog."),
        ("A dog [0.1, 0.2, 0.3, 0.4]", "A dog"),
        ("A dog[0.1, 0.2, 0.3, 0.4]runs", "A dog runs"),
        ("A dog [0.1, 0.2, 0.3, 0.4] , a cat", "A dog, a cat"),
        ("A dog [0.1, 0.2, 0.3, 0.4] and [0.3, 0.1, 0.2, 0.4].", "A dog."),
        ("A dog [0.1, 0.2, 0.3] [0.1, 0.2, 0.3, 0.4] runs", "A dog runs"),
        ("A dog [0.1, 0.2, 0.3, 0.4] and a cat [0.5, 0.", "A dog and a cat"),
        ("A dog [0.1, 0.2, 0.3, 0.4] and [0.5, 0.", "A dog"),
        ("A dog\n[0.1, 0.2, 0.3, 0.4]\nruns", "A dog\n\nruns"),
        ("[0.1, 0.2, 0.3, 0.4]", ""),
    ],
)
def test_words(text, bare):
    assert llava().words(text, llava().parse(text, 10, 10)) == bare


@pytest.mark.parametrize("form", SENTENCES, ids=lambda form: f"{form.family}-{form.aspect}")
@given(
    rows=st.lists(st.tuples(WORDS, STEPS), min_size=1, max_size=6),
    between=st.sampled_from([", ", " and ", ". "]),
    data=st.data(),
)
def test_any_removal_is_well_formed(form, rows, between, data):
    text = answer(form, rows, between)
    parsed = form.parse(text, 50, 50)
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    left = form.rewrite(text, parsed, dict.fromkeys(gone))
    assert "  " not in left and not re.search(r"\s[.,;:!?]", left) and left == left.strip()
    assert len(form.parse(left, 50, 50).boxes) == len(rows) - len(gone)
    assert form.words(left, form.parse(left, 50, 50)) == form.words(text, parsed)


@pytest.mark.parametrize("form", LISTS, ids=lambda form: form.family)
@given(rows=st.lists(st.tuples(WORDS, STEPS), min_size=1, max_size=6), cut=st.integers(0, 60), data=st.data())
def test_a_list_stays_json_without_some_entries(form, rows, cut, data):
    """Whole, or cut off anywhere in its last entry."""
    whole = answer(form, rows)
    last = whole.rindex("{")
    text = whole[: max(last + 1, len(whole) - cut)] if cut > 7 else whole
    parsed = form.parse(text, 1000, 1000)
    gone = data.draw(st.sets(st.integers(0, len(parsed.boxes) - 1))) if parsed.boxes else set()
    left = form.rewrite(text, parsed, dict.fromkeys(gone), drop_failures=True)
    labels = [entry["label"] for entry in json.loads(left.split("json")[1].split("```")[0])]
    assert labels == [mention.phrase for index, mention in enumerate(parsed.mentions) if index not in gone]
    if labels:
        assert form.words(left, form.parse(left, 1000, 1000)) == ", ".join(labels)


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
        (qwen3_vl(), '[{"bbox_2d": [1, 2, 3], "label": "a dog"}]', {"malformed": 1}),
        (qwen3_vl(), '[{"bbox_2d": [1, 2, 3, 1001], "label": "a dog"}]', {"out_of_range": 1}),
        (qwen3_vl(), '[{"bbox_2d": [1, 2, 3, 4], "label": "a dog"}, {"bbox_2d": [1, 2,', {"truncated": 1}),
        (qwen3_vl(), '[{"bbox_2d": [1, 2, 3, 4], "label": "a do', {"truncated": 1}),
        (qwen3_vl(), '{"answer": 3}', {}),
    ],
)
def test_what_tags_and_lists_get_wrong_is_counted(form, text, failures):
    assert form.parse(text, 640, 480).failures == failures


@given(st.integers(30, 4000), st.integers(30, 4000))
def test_qwen_resizes_as_its_processor_does(width, height):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    high, wide = smart_resize(height, width, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    assert resized(width, height, 28, 56 * 56, 28 * 28 * 1280) == (wide, high)


def test_failures_stay_unless_they_are_dropped():
    form, text = llava(), "A dog [0.1, 0.2, 0.3], a cat [0.1, 0.2, 0.3, 0.4]."
    parsed = form.parse(text, 10, 10)
    assert form.rewrite(text, parsed, {}) == text
    assert form.rewrite(text, parsed, {}, drop_failures=True) == "A dog, a cat [0.1, 0.2, 0.3, 0.4]."


# --- choosing


def test_describe_is_what_the_checkpoint_keeps():
    assert llava("pad").describe() == {"family": "llava", "space": "padded_square", "aspect": "pad"}
    assert llava("anyres").describe() == {"family": "llava", "space": "normalized", "aspect": "anyres"}
    assert ferret().describe() == {"family": "ferret", "space": "grid1000", "aspect": None}


def test_box_format_asks_the_hook():
    assert box_format("llava", "square") == llava("square")
    assert box_format("shikra") == shikra()
    assert {box_format(family).family for family in FAMILIES} == FAMILIES.keys()
    with pytest.raises(UserError, match="--spr_box_format nobody"):
        box_format("nobody")


def _corners(box):
    return "({},{}),({},{})".format(*(box + ",").split(","))


# --- lists of boxes

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


# --- where coordinates are written


@every_format
def test_coordinates_are_all_that_is_written_as_such_and_no_word(form):
    """In whatever picture; numbers in prose are words, and what cannot be read is an attempt all the same."""
    text = answer(form, [("red cup", (100, 200, 400, 700)), ("3 dogs", (0, 0, 999, 999))])
    words = "".join(
        " " if any(start <= index < end for start, end in form.coordinate_spans(text)) else character
        for index, character in enumerate(text)
    )
    assert re.findall(r"\d+", words.replace("bbox_2d", "")) == ["3"]
    assert "red cup" in words and "dogs" in words


@every_format
@pytest.mark.parametrize(
    "text, told",
    [
        ("two cups", []),
        ("", []),
        ("a cup [10, 20, 30, 4000] here", ["[10, 20, 30, 4000]"]),
        ("a cup [10, 20, 30", ["[10, 20, 30"]),
    ],
)
def test_attempts_are_coordinates_too(form, text, told):
    assert [text[start:end] for start, end in form.coordinate_spans(text)] == told
