"""What was read: phrases, boxes and where they lie; and edits that keep a sentence well-formed."""

import pytest

from spr_plugin.formats import llava, qwen_vl
from spr_plugin.formats.parsed import Failure, Parsed, apply, bare, outside


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


def test_what_could_not_be_read_is_counted_in_the_text_s_order():
    shared = Failure((20, 30), "inverted", "cats", inside=(10, 40))
    parsed = Parsed((), (Failure((0, 5), "malformed"), shared, Failure((50, 60), "malformed")))
    assert list(parsed.failures.items()) == [("malformed", 2), ("inverted", 1)]
    assert parsed.failed_spans == ((0, 5), (20, 30), (50, 60))
    assert parsed.spoiled_lists == {(10, 40)} and outside(parsed) == [(0, 5), (50, 60)]


def test_boxes_are_numbered_over_all_mentions():
    text = "dogs [0.1, 0.2, 0.3, 0.4] and [0.5, 0.5, 0.6, 0.9], a cat [0.7, 0.1, 0.8, 0.2]"
    parsed = llava("square").parse(text, 10, 10)
    assert [box.xyxy for box in parsed.boxes] == [
        (0.1, 0.2, 0.3, 0.4),
        (0.5, 0.5, 0.6, 0.9),
        (0.7, 0.1, 0.8, 0.2),
    ]


def cut(text, *gone) -> str:
    return apply(text, [((text.index(one), text.index(one) + len(one)), None) for one in gone])


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [
        ("a dog [1] runs", ["[1]"], "a dog runs"),
        ("a dog[1]runs", ["[1]"], "a dog runs"),
        ("[1] a dog", ["[1]"], "a dog"),
        ("a dog [1].", ["[1]"], "a dog."),
        ("a dog ([1]) runs", ["[1]"], "a dog runs"),
        ('a dog "[1]" runs', ["[1]"], "a dog runs"),
        ("a dog \\[1] runs", ["[1]"], "a dog runs"),
        ("dogs [1] and [2] run", ["[1]", "[2]"], "dogs run"),
        ("dogs [1] and [2] run", ["[2]"], "dogs [1] run"),
        ("dogs [1], [2] and cats", ["[1]", "[2]"], "dogs and cats"),
        ("a dog\n[1]\nruns", ["[1]"], "a dog\n\nruns"),
        ("([1] runs", ["[1]"], "(runs"),
    ],
)
def test_what_is_cut_closes_its_gap(text, gone, left):
    assert cut(text, *gone) == left


def test_a_text_in_place_of_another_closes_nothing():
    assert apply("a [1] b [2]", [((8, 11), "[4]"), ((2, 5), "[3]")]) == "a [3] b [4]"
    assert apply("a [1] b", [((2, 5), "")]) == "a  b"
    assert apply("as it is", []) == "as it is"


def test_a_mention_without_boxes_keeps_its_words_and_loses_its_tags():
    text = "There is <ref>a dog</ref><box>(1,2),(3,4)</box>."
    [marked] = qwen_vl().parse(text, 100, 100).mentions
    assert bare(marked) == ((9, len(text) - 1), "a dog")
    [plain] = llava().parse("a dog [0.1, 0.2, 0.3, 0.4]", 10, 10).mentions
    assert bare(plain) == (plain.span, None)
