"""What every family can do with its text: rewrite it, take coordinates out, say where they are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Space
from spr_plugin.formats import ferret, llava
from tests.formats.written import SENTENCES, SIZES, STEPS, WORDS, answer, every_format


@every_format
@given(size=SIZES, rows=st.lists(st.tuples(WORDS, STEPS), min_size=1, max_size=5))
def test_rewriting_with_its_own_boxes_changes_nothing(form, size, rows):
    text = "A picture. " + answer(form, rows, size=size)
    parsed = form.parse(text, *size)
    assert len(parsed.boxes) == len(rows) and not parsed.failures
    assert form.rewrite(text, parsed, dict(enumerate(parsed.boxes))) == text
    through_pixels = {index: box.to(Space.pixels(*size)) for index, box in enumerate(parsed.boxes)}
    assert form.rewrite(text, parsed, through_pixels) == text


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


def test_failures_stay_unless_they_are_dropped():
    form, text = llava(), "A dog [0.1, 0.2, 0.3], a cat [0.1, 0.2, 0.3, 0.4]."
    parsed = form.parse(text, 10, 10)
    assert form.rewrite(text, parsed, {}) == text
    assert form.rewrite(text, parsed, {}, drop_failures=True) == "A dog, a cat [0.1, 0.2, 0.3, 0.4]."


def test_describe_is_what_the_checkpoint_keeps():
    assert llava("pad").describe() == {"family": "llava", "space": "padded_square", "aspect": "pad"}
    assert llava("anyres").describe() == {"family": "llava", "space": "normalized", "aspect": "anyres"}
    assert ferret().describe() == {"family": "ferret", "space": "grid1000", "aspect": None}


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
