"""Head nouns, and which names agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.recipes.spr.names import agreement, head_noun, same_noun


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("dog", "dog"),
        ("the red coffee cups", "cups"),
        ("woman in an orange space suit", "woman"),
        ("woman wearing a hat", "woman"),
        ("a man holding a cup", "man"),
        ("handle of the cup", "handle"),
        ("eye on the left", "eye"),
        ("bow (weapon)", "bow"),
        ("black and white cat", "cat"),
        ("building", "building"),
        ("thing 0", "thing"),
        ("T-shirt", "t-shirt"),
        ("trash can", "can"),
        ("can on the left", "can"),
        ("computer display on the wall", "display"),
        # what a mention's phrase may begin with: all back to the last punctuation
        ("There is a dog", "dog"),
        ("In the region are two men", "men"),
        ("the man is holding a cup", "cup"),
        ("is holding a cup", "cup"),
        ("holding a cup", "cup"),
        ("the man is a", ""),
        ("on the left and a cat", "cat"),
        ("next to a cup", "cup"),
        ("chases a cat", "cat"),
        ("", ""),
        ("123", ""),
        ("the", ""),
    ],
)
def test_head_nouns(name, noun):
    assert head_noun(name) == noun


@pytest.mark.parametrize(
    "both",
    "dog/dogs horse/horses bus/buses glass/glasses knife/knives leaf/leaves person/people woman/women "
    "cherry/cherries box/boxes shelf/shelves bookshelf/bookshelves penknife/penknives potato/potatoes "
    "child/children tie/ties".split(),
)
def test_number_is_no_difference(both):
    one, several = both.split("/")
    assert same_noun(one, several) and same_noun(several, one)


@pytest.mark.parametrize("both", ["circle/cross", "glass/grass", "bus/box", "man/woman", "cat/car", "gas/ga"])
def test_other_nouns_are_others(both):
    assert not same_noun(*both.split("/"))


def test_names_agree_by_noun_then_by_a_model_and_what_has_none_agrees():
    asked = []

    def likeness(first, second):
        asked.append((list(first), list(second)))
        return np.array(
            [[0.95 if {one, other} == {"a sofa", "couch"} else 0.8 for other in second] for one in first]
        )

    written, true = ["a sofa", "dogs", "", "a sofa"], ["couch", "brown dog", ""]
    by_noun = agreement(written, true)
    assert by_noun.tolist() == [[False, False, True], [False, True, True], [True] * 3, [False, False, True]]
    by_model = agreement(written, true, likeness, 0.9)
    assert by_model.tolist() == [[True, False, True], [False, True, True], [True] * 3, [True, False, True]]
    # Once, each name once, and none of what agrees anyway.
    assert asked == [(["a sofa", "dogs"], ["brown dog", "couch"])]
    assert (agreement(written, true, likeness, 0.96) == by_noun).all()
    assert (agreement(written, true, likeness, 0.95) == by_model).all()  # as like as that is like enough
    # Where every name that is written has a noun, "" of the true ones still agrees with all.
    assert agreement(["a sofa", "dogs"], true, likeness, 0.9).tolist() == [
        by_model[0].tolist(),
        [False, True, True],
    ]
    assert asked[-1] == asked[0]
    assert agreement([], true, likeness).shape == (0, 3) and agreement(["dog"], ["dog"], None).tolist() == [
        [True]
    ]


WORDS = st.lists(st.sampled_from("a the red old dog dogs cup of in two men is".split()), max_size=5).map(
    " ".join
)


@given(WORDS)
def test_a_noun_is_a_word_of_the_name_and_articles_do_not_change_it(name):
    noun = head_noun(name)
    assert not noun or noun in name.split()
    assert head_noun(f"the {name}") == noun == head_noun(name.upper())
