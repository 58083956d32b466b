"""What goes with a box that goes: items of a list, whole sentences, entries; and where nothing can be cut."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.formats import cogvlm, ferret, internvl, kosmos2, llava, qwen2_5_vl, qwen3_vl, qwen_vl, shikra
from spr_plugin.formats.items import numbered_anew

FORM = llava("square")
PROSE = [llava("pad"), FORM, ferret(), shikra(), cogvlm(), qwen_vl(), internvl(), kosmos2()]
JSON = [qwen2_5_vl(), qwen3_vl()]
BOX = re.compile(r"\[(\d)(!?)\]")


def cut(form, text):
    """(what is left, names without a box) of a text in which ``[1]`` is a box that stays and ``[2!]`` one
    that is lost; boxes in what is left are shown so too.
    """
    space = Space.normalized(100, 100)
    boxes = {digit: form.write(Box(0.1 * int(digit), 0.1, 1, 1, space)) for digit, _ in BOX.findall(text)}
    written = BOX.sub(lambda found: boxes[found[1]], text).replace(
        "[?]", form.write(Box(0, 0, 1, 1, space))[:-1]
    )
    parsed = form.parse(written, 100, 100)
    lost = [bool(mark) for _, mark in BOX.findall(text)]
    owners = [index for index, mention in enumerate(parsed.mentions) for _ in mention.boxes]
    gone = set(owners) - {index for index, is_lost in zip(owners, lost, strict=True) if not is_lost}
    left, bare = form.without_items(written, parsed, gone)
    for digit, box in boxes.items():
        left = left and left.replace(box, f"[{digit}]")
    return left, bare


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # lists
        ("a dog [1], a cat [2!] and a cup [3].", "a dog [1] and a cup [3]."),
        ("a dog [1!], a cat [2] and a cup [3].", "a cat [2] and a cup [3]."),
        ("a dog [1], a cat [2] and a cup [3!].", "a dog [1] and a cat [2]."),
        ("a dog [1], a cat [2!] and a cup [3!].", "a dog [1]."),
        ("a dog [1], a cat [2], and a cup [3!].", "a dog [1] and a cat [2]."),
        ("a dog [1], a cat [2!], a cow [3], and a cup [4].", "a dog [1], a cow [3], and a cup [4]."),
        ("a dog [1] and a cat [2!]", "a dog [1]"),
        ("a dog [1!] and a cat [2]", "a cat [2]"),
        ("a dog [1]; a cat [2!]; a cup [3]", "a dog [1]; a cup [3]"),
        ("a dog [1],a cat [2!],a cup [3]", "a dog [1],a cup [3]"),
        ("a cup ([1]), a dog ([2!]) and a cat ([3]).", "a cup ([1]) and a cat ([3])."),
        ("a dog [1!], a cat [2!] and a cup [3!].", ""),
        # what a model broke off
        ("a dog [1], a cat [2!] and a cup [3] and.", "a dog [1] and a cup [3]."),
        ("a dog [1], a cup [2!] and.", "a dog [1]."),
        ("a dog [1],, a cat [2!], a cup [3],", "a dog [1], a cup [3]"),
        # the first letter, and what stands before the first name
        ("A dog [1!], a cat [2] and a cup [3].", "A cat [2] and a cup [3]."),
        ("There is a dog [1!] and a cat [2].", "There is a cat [2]."),
        ("There are a dog [1!] and a cat [2].", "There is a cat [2]."),
        ("There is a dog [1!], two cats [2] and a cup [3].", "There are two cats [2] and a cup [3]."),
        ("In the photo, a dog [1!], cats [2] and a cup [3].", "In the photo, cats [2] and a cup [3]."),
        ("The image shows a dog [1!], a cat [2].", "The image shows a cat [2]."),
        ("Objects: a dog [1!] and a cat [2].", "Objects: a cat [2]."),
        # words behind a name and within it
        ("a dog [1] on the left and a cat [2!] on the right.", "a dog [1] on the left."),
        ("a large, red cup [1!] and a black and white cat [2].", "a black and white cat [2]."),
        ("salt and pepper shaker [1!], dog [2]", "dog [2]"),
        ("bottle [1], can [2!] and display [3]", "bottle [1] and display [3]"),
        ("man in a suit [1], flag [2!] and lamp by a tree [3].", "man in a suit [1] and lamp by a tree [3]."),
        ("a dog [1] next to a cat [2], a cup [3!].", "a dog [1] next to a cat [2]."),
        # sentences and lines
        ("A dog [1!]. A cat [2].", "A cat [2]."),
        ("A dog [1]. A cat [2!].", "A dog [1]."),
        ("A man [1!] holds a cup [2!]. A dog [3] sleeps.", "A dog [3] sleeps."),
        ("A dog [1!]. It is brown. A cat [2].", "A cat [2]."),
        ("A dog [1!].\nIt is brown.\nA cat [2].", "A cat [2]."),
        ("Mr. Smith [1!]. A dog [2].", "A dog [2]."),
        ("- a dog [1]\n- a cat [2!]\n- a cup [3]", "- a dog [1]\n- a cup [3]"),
        ("1. a dog [1]\n2. a cat [2!]\n3. a cup [3]\n", "1. a dog [1]\n2. a cup [3]"),
        # coordinates that cannot be read are a lost box
        ("a dog [1], a cat [?] and a cup [3].", "a dog [1] and a cup [3]."),
        ("a dog [1] and a cat [?]", "a dog [1]"),
    ],
)  # fmt: skip
def test_what_goes_with_a_box(text, left):
    assert cut(FORM, text) == (left, 0)


@pytest.mark.parametrize(
    "text",
    [
        "A dog [1] chases a cat [2!].",
        "A dog [1!] chases a cat [2].",
        "A man [1!] and a woman [2] are walking.",
        "A man [1] and a woman [2!] in the car are walking.",
        "A man [1] holding a cup [2!].",
        "A man [1], holding a cup [2!], and a dog [3].",
        "a cup [1] between a dog [2] and a cat [3!].",
        "There are two objects: a dog [1!] and a cat [2].",
        "There are two objects:\n- a dog [1!]\n- a cat [2]",
        "A dog [1] and a cat [2!]. They are playing.",
        "Next to a tree [1], a dog [2!] and a cat [3].",
        "a dog [1] a cat [2!]",
    ],
)
def test_where_items_cannot_part_nothing_is_cut(text):
    assert cut(FORM, text) == (None, 0)


@pytest.mark.parametrize(
    ("text", "left", "bare"),
    [
        ("a dog [1], a tree and a cat [2].", "a dog [1] and a cat [2].", 1),
        ("a dog [1], a tree, a bush and a cat [2!].", "a dog [1].", 2),
        ("dog [1], tree and cat [2]", "dog [1], tree and cat [2]", 0),
        ("A dog [1]. There is a tree.", "A dog [1].", 1),
        ("A dog [1] is here. The weather is nice.", "A dog [1] is here. The weather is nice.", 0),
        ("Sure! A dog [1].", "Sure! A dog [1].", 0),
        ("Some things.", "", 1),
        # weighs, and stays where it cannot be told apart or is counted
        (
            "Two dogs: a dog [1] and a dog [2]. Some trees.",
            "Two dogs: a dog [1] and a dog [2]. Some trees.",
            1,
        ),
        ("A dog [1] chases a cat, a mouse and a bird.", "A dog [1] chases a cat, a mouse and a bird.", 2),
    ],
)
def test_names_that_never_had_a_box_are_counted_and_go(text, left, bare):
    assert cut(FORM, text) == (left, bare)


def test_tagged_phrases_are_items_with_nothing_between_them_too():
    form = qwen_vl()
    dog, cat, cup = (
        f"<ref>{name}</ref>[{n}]" for name, n in (("a dog, brown", "1"), ("cat", "2!"), ("cup", "3"))
    )
    shown = [name.replace("!", "") for name in (dog, cat, cup)]
    assert cut(form, dog + cat + cup) == (shown[0] + shown[2], 0)
    assert cut(form, f"There is {cat} and a {cup}.") == (f"There is a {shown[2]}.", 0)
    assert cut(form, f"{dog}, <ref>a tree</ref>, {cup}") == (f"{shown[0]}, {shown[2]}", 1)


@pytest.mark.parametrize("form", JSON, ids=lambda form: form.family)
def test_entries_without_a_box_and_lost_ones_go(form):
    boxes = [Box(10 * n, 10, 60, 60, Space.pixels(100, 100)) for n in range(3)]
    text = form.render(zip(("dog", "cat", "cup"), boxes)).replace("\n]", ',\n\t{"label": "tree"}\n]')
    parsed = form.parse(text, 100, 100)
    assert form.without_items(text, parsed, {1}) == (form.render([("dog", boxes[0]), ("cup", boxes[2])]), 1)
    prose = f"A dog {form.write(boxes[0])}.\n" + form.render([("cat", boxes[1])])
    assert form.without_items(prose, form.parse(prose, 100, 100), {0}) == (None, 0)
    assert cut(form, "a dog [1], a cat [2!] and a cup [3].") == ("a dog [1] and a cup [3].", 0)


NAMES = st.sampled_from(["a dog", "the red circle", "two men in black", "a cup of tea", "an old, green tree"])
LEADS = st.sampled_from(
    ["", "There is ", "In the picture, ", "The region contains ", "I see the following: "]
)
LAST = st.sampled_from([" and ", ", and ", ", ", " as well as "])


def listing(form, names, last, lead):
    """A list of names, each with a box of its own, in prose."""
    boxes = [Box(0.01 * n, 0.01 * n, 1, 1, Space.normalized(100, 100)) for n in range(1, len(names) + 1)]
    before, after = getattr(form, "phrase_tags", ("", " "))
    rows = [before + name + after + form.write(box) for name, box in zip(names, boxes)]
    return lead + ", ".join(rows[:-1]) + (last if rows[1:] else "") + rows[-1] + "."


@pytest.mark.parametrize("form", PROSE, ids=lambda form: f"{form.family}-{form.aspect}")
@settings(max_examples=40)
@given(names=st.lists(NAMES, min_size=1, max_size=6), last=LAST, lead=LEADS, data=st.data())
def test_a_list_without_some_items_is_a_list(form, names, last, lead, data):
    text = listing(form, names, last, lead)
    parsed = form.parse(text, 100, 100)
    gone = data.draw(st.sets(st.integers(0, len(parsed.mentions) - 1)))
    left, bare = form.without_items(text, parsed, gone)
    kept = [mention for index, mention in enumerate(parsed.mentions) if index not in gone]
    assert bare == 0 and left is not None
    after = form.parse(left, 100, 100)
    assert [mention.boxes for mention in after.mentions] == [mention.boxes for mention in kept]
    assert not after.failures and (left == "") == (not kept)
    # Each name that is left has its box: without these, the lead and what joins names remains.
    words = re.sub(r"\s+", " ", form.words(left, after)).lower()
    left_names = [name for index, name in enumerate(names) if index not in gone]
    assert all(words.count(name) == left_names.count(name) for name in names)
    assert "  " not in left and not re.search(r"\s[.,;]|[,;]\s*[.,;]|\band\s*\.|,\s*\.|\A\W*(?:and|,)", left)
    if len(kept) > 1 and last != ", ":
        assert left.count(last.strip(", ")) >= 1
    assert form.without_items(left, after, set()) == (left, 0)


@pytest.mark.parametrize(
    "before, left, counted",
    [
        ("1. a\n2. b", "2. b", "1. b"),
        ("1. a\n2. b\n3. c", "1. a\n3. c", "1. a\n2. c"),
        ("1. a\n2. b", "1. a\n2. b", "1. a\n2. b"),
        ("2. a\n3. b", "3. b", "3. b"),  # that never counted from 1
        ("1. a", "", ""),
    ],
)
def test_numbered_lines_are_counted_again(before, left, counted):
    assert numbered_anew(before, left) == counted
