"""Which parts of a text speak of which box, and which of its words differ: nothing of it is lost."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from spr_plugin.tools.inspect.texts import MOST_WORDS, differing, parts

SPANS = st.tuples(st.integers(-2, 14), st.integers(-2, 14))


def naive(text, spans, differ):
    """Character by character."""
    inside = lambda span, place: span[0] <= place < span[1]
    return [
        (
            letter,
            {key for span, key in spans if inside(span, place)},
            any(inside(span, place) for span in differ),
        )
        for place, letter in enumerate(text)
    ]


@given(st.text(max_size=12), st.lists(st.tuples(SPANS, st.sampled_from("abc"))), st.lists(SPANS))
def test_each_character_has_its_boxes_and_whether_it_differs(text, spans, differ):
    made = parts(text, spans, differ)
    assert "".join(part.text for part in made) == text
    assert [
        (letter, set(part.boxes), differs)
        for part in made
        for piece, differs in part.pieces
        for letter in piece
    ] == naive(text, spans, differ)
    names = [part.name for part in made if part.name]
    assert len(names) == len(set(names)) and set(names) <= {key for part in made for key in part.boxes[:1]}


def test_a_phrase_of_two_boxes_speaks_of_both_and_each_box_text_of_its_own():
    text = "cups [1] [2], dog"
    made = parts(text, [((0, 4), "a"), ((5, 8), "a"), ((0, 4), "b"), ((9, 12), "b")])
    assert [(part.text, part.boxes, part.name) for part in made if part.boxes] == [
        ("cups", ("a", "b"), "a"), ("[1]", ("a",), ""), ("[2]", ("b",), "b")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "first, second, words",
    [
        ("a red cup", "a blue cup", (["red"], ["blue"])),
        ("a red cup", "a  red\ncup", ([], [])),
        ("a big red cup", "a cup", (["big red"], [])),
        ("", "one two", ([], ["one two"])),
        ("a b", "b a", (["b"], ["b"])),
    ],
)
def test_words_that_differ(first, second, words):
    spans = differing(first, second)
    assert tuple([text[slice(*span)] for span in row] for text, row in zip((first, second), spans)) == words


def test_what_is_too_long_is_not_compared():
    assert differing("a " * (MOST_WORDS + 1), "b") is None
    assert differing("a " * MOST_WORDS, "a") is not None
