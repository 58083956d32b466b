"""Where an item can be put into a text, and how it is written there."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.formats import cogvlm, ferret, internvl, kosmos2, llava, qwen2_5_vl, qwen3_vl, qwen_vl, shikra
from spr_plugin.formats.additions import with_article, without_article

FORM = llava("square")
PROSE = [llava("pad"), FORM, ferret(), shikra(), cogvlm(), qwen_vl(), internvl(), kosmos2()]
JSON = [qwen2_5_vl(), qwen3_vl()]
SPACE = Space.normalized(1000, 1000)
BOX = re.compile(r"\[(\d)\]")


def box(digit):
    return Box(0.1 * digit, 0.1, 1, 1, SPACE)


def put_in(form, text, index, phrase="cow"):
    """The text, in which ``[1]`` is a box, with one more, ``[9]``, called so; boxes are shown so again."""
    digits = {*map(int, BOX.findall(text)), 9}
    written = BOX.sub(lambda found: form.write(box(int(found[1]))), text)
    made = form.with_item(written, form.parse(written, 1000, 1000), index, phrase, box(9))
    for digit in digits:
        made = made and made.replace(form.write(box(digit)), f"[{digit}]")
    return made


@pytest.mark.parametrize(
    ("text", "place", "made"),
    [
        # lists: first, between, last
        ("a dog [1], a cat [2] and a cup [3].", 0, "a cow [9], a dog [1], a cat [2] and a cup [3]."),
        ("a dog [1], a cat [2] and a cup [3].", 1, "a dog [1], a cow [9], a cat [2] and a cup [3]."),
        ("a dog [1], a cat [2] and a cup [3].", 2, "a dog [1], a cat [2], a cow [9] and a cup [3]."),
        ("a dog [1], a cat [2] and a cup [3].", 3, "a dog [1], a cat [2], a cup [3] and a cow [9]."),
        ("a dog [1] and a cat [2].", 0, "a cow [9], a dog [1] and a cat [2]."),
        ("a dog [1] and a cat [2]", 1, "a dog [1], a cow [9] and a cat [2]"),
        ("a dog [1] and a cat [2]", 2, "a dog [1], a cat [2] and a cow [9]"),
        ("a dog [1], a cat [2], and a cup [3].", 3, "a dog [1], a cat [2], a cup [3], and a cow [9]."),
        ("a dog [1]; a cat [2]; a cup [3]", 3, "a dog [1]; a cat [2]; a cup [3]; a cow [9]"),
        ("a dog [1],a cat [2]", 1, "a dog [1],a cow [9],a cat [2]"),
        # of one
        ("a dog [1].", 1, "a dog [1] and a cow [9]."),
        ("a dog [1]", 0, "a cow [9], a dog [1]"),
        # as its neighbours are written
        ("dog [1], cat [2]", 1, "dog [1], cow [9], cat [2]"),
        ("The dog [1], the cat [2].", 0, "A cow [9], the dog [1], the cat [2]."),
        ("A dog [1], a cat [2] and a cup [3].", 0, "A cow [9], a dog [1], a cat [2] and a cup [3]."),
        ("A dog [1], a cat [2] and a cup [3].", 1, "A dog [1], a cow [9], a cat [2] and a cup [3]."),
        ("Dog [1], Cat [2]", 0, "Cow [9], Dog [1], Cat [2]"),
        ("a dog [1] on the left and a cat [2].", 2, "a dog [1] on the left, a cat [2] and a cow [9]."),
        # what stands before the first name
        ("There is a dog [1] and a cat [2].", 0, "There is a cow [9], a dog [1] and a cat [2]."),
        ("There are two dogs [1] and a cat [2].", 0, "There are a cow [9], two dogs [1] and a cat [2]."),
        ("Objects: a dog [1] and a cat [2].", 2, "Objects: a dog [1], a cat [2] and a cow [9]."),
        # lines and sentences of one
        ("- a dog [1]\n- a cat [2]", 1, "- a dog [1]\n- a cow [9]\n- a cat [2]"),
        ("- a dog [1]\n- a cat [2]\n", 2, "- a dog [1]\n- a cat [2]\n- a cow [9]\n"),
        ("1. a dog [1]\n2. a cat [2]", 0, "1. a cow [9]\n2. a dog [1]\n3. a cat [2]"),
        ("1. Dog [1].\n2. Cat [2].", 2, "1. Dog [1].\n2. Cat [2].\n3. Cow [9]."),
        ("Objects are:\n- a dog [1]\n- a cat [2]", 2, "Objects are:\n- a dog [1]\n- a cat [2]\n- a cow [9]"),
        ("A dog [1]. The sky is blue. A cat [2]. The end.", 2, "A dog [1]. The sky is blue. A cat [2]. A cow [9]. The end."),  # noqa: E501
        ("There is a dog [1]. There are two cats [2].", 2, "There is a dog [1]. There are two cats [2]. There is a cow [9]."),  # noqa: E501
        ("A dog [1]. It is brown. A cat [2].", 1, "A dog [1]. It is brown. A cow [9]. A cat [2]."),
        ("A dog [1]. A cat [2].", 1, "A dog [1]. A cow [9]. A cat [2]."),
        # not clean
        ("A man [1] holds a cup [2].", 1, None),
        ("Two objects: a dog [1] and a cat [2].", 1, None),
        ("a dog [1] beside a cat [2], a cup [3]", 3, None),
        ("A dog [1]. It is brown.", 1, None),
        ("A dog [1] sleeps.", 1, None),
        ("On the left there is a dog [1]. On the right there is a cat [2].", 2, None),
        ("Rex [1].", 0, None),
        ("Nothing.", 0, None),
        ("", 0, None),
    ],
)  # fmt: skip
def test_where_an_item_goes_in(text, place, made):
    assert put_in(FORM, text, place) == made


@pytest.mark.parametrize("form", PROSE, ids=lambda form: f"{form.family}-{form.aspect}")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_family_that_writes_sentences_takes_one(form, place):
    boxes = {digit: box(digit) for digit in (1, 2, 9)}
    text = form.render([("dog", boxes[1]), ("red cat", boxes[2])])
    made = form.with_item(text, form.parse(text, 1000, 1000), place, "cow", boxes[9])
    named = [("dog", boxes[1]), ("red cat", boxes[2])]
    assert made == form.render([*named[:place], ("cow", boxes[9]), *named[place:]])


@pytest.mark.parametrize("form", JSON, ids=lambda form: form.family)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_so_does_a_list_of_entries(form, place):
    named = [("dog", box(1)), ('a "red" cat', box(2))]
    text = form.render(named)
    made = form.with_item(text, form.parse(text, 1000, 1000), place, "cow, brown", box(9))
    assert made == form.render([*named[:place], ("cow, brown", box(9)), *named[place:]])
    one = "[" + form.entry("dog", box(1)) + "]"
    made = form.with_item(one, form.parse(one, 1000, 1000), min(place, 1), "cow", box(9))
    assert [m.phrase for m in form.parse(made, 1000, 1000).mentions] == [["cow", "dog"], ["dog", "cow"]][
        place > 0
    ]
    prose = "a dog " + form.write(box(1))
    assert form.with_item(prose, form.parse(prose, 1000, 1000), 0, "cow", box(9)) is None


def test_a_name_that_would_be_read_as_two_is_not_clean():
    assert put_in(FORM, "a dog [1], a cat [2]", 1, "cow, brown") is None
    assert put_in(FORM, "a dog [1], a cat [2]", 1, "cow [0.1, 0.1, 0.2, 0.2]") is None
    assert put_in(FORM, "a dog [1], a cat [2]", 1, "cow [0.1, 0.1, 0.2, 0.2] and calf") is None
    assert put_in(FORM, "a dog [1], a cat [2]", 1, "cow\n- calf") is None


def test_a_box_too_small_to_be_written_is_not_put_in():
    text, speck = f"dog {FORM.write(box(1))}", Box(0.5, 0.5, 0.5001, 0.5001, SPACE)
    assert FORM.with_item(text, FORM.parse(text, 1000, 1000), 0, "fly", speck) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("dog", "a dog"), ("old dog", "an old dog"), ("two dogs", "two dogs"), ("the dog", "the dog"), ("", "")],
)
def test_an_article(name, said):
    assert with_article(name) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("the dog", "dog"),
        ("dog", "dog"),
        ("man on the bench", "man on the bench"),
        ("The two dogs", "two dogs"),
    ],
)
def test_no_article(name, said):
    assert without_article(name) == said


@given(st.text("ab [].,\n-1", max_size=30), st.integers(0, 3))
def test_whatever_the_text_nothing_of_it_is_lost(text, place):
    """What is made holds all words and boxes of the text, and one more."""
    written = text.replace("[1]", FORM.write(box(1)))
    parsed = FORM.parse(written, 1000, 1000)
    if place <= len(parsed.mentions):
        made = FORM.with_item(written, parsed, place, "cow", box(9))
        if made is not None:
            assert len(FORM.parse(made, 1000, 1000).boxes) == len(parsed.boxes) + 1
            left = re.sub(r"an? |and|\W|\d", "", made.lower().replace("cow", ""))
            assert left == re.sub(r"an? |and|\W|\d", "", written.lower())
