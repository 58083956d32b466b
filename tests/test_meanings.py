"""Every word that a run gives its reasons in, and every term of a score, has a sentence."""

from spr_plugin.data.pictures import REASONS as OF_PICTURES
from spr_plugin.meanings import LEFT_OUT, REASONS, meaning_of
from spr_plugin.pairing import untrained
from spr_plugin.recipes.actial.meanings import MEANINGS as ACTIAL
from spr_plugin.recipes.base import UNREADABLE
from spr_plugin.recipes.by_text import MEANINGS as RIGHT_OR_WRONG
from spr_plugin.recipes.spatial_thinker.meanings import MEANINGS as THINKER
from tests.meant import words


def test_what_is_left_out_of_a_source_has_its_sentence():
    counted = words(r'skipped\["(\w+)"\]', "data", "recipes") | {*OF_PICTURES}
    counted |= words(r'return "(\w+)"', "data/annotations.py") | words(
        r'["(](\w+_image_record|no_label)"', "data"
    )
    counted |= {f"box_{word}" for word in words(r"``(\w+)``  ", "formats/reading.py")}
    assert len(counted) > 20 and counted <= LEFT_OUT.keys() | THINKER.keys() | ACTIAL.keys()


def test_what_keeps_an_answer_or_a_pair_from_being_has_its_sentence():
    given = words(r'(?:return|else) "(\w+)"', "pairing.py") | words(r'why = "(\w+)"', "judging.py")
    given |= words(r'unjudged\(text, "(\w+)"\)', "recipes/by_text.py")
    assert {"empty", "none_worse", "too_few_valid", "chosen_equals_rejected", "image_unreadable"} <= given
    assert given | {UNREADABLE} <= REASONS.keys()


def test_a_recipe_s_own_meaning_comes_first_and_nobody_s_is_empty():
    assert meaning_of("none_worse", {"none_worse": "Mine."}) == "Mine."
    assert meaning_of("none_worse", {}) == REASONS["none_worse"] and meaning_of("lab", {}) == ""
    assert meaning_of("small", {}, LEFT_OUT) == LEFT_OUT["small"] and meaning_of("small", {}) == ""


def test_what_is_said_of_answers_that_are_right_or_wrong_has_its_sentence():
    given = words(r'"((?:all_)?(?:right|wrong))"', "recipes/by_text.py")
    assert len(given) == 4 and given | {"asked_already"} == RIGHT_OR_WRONG.keys()


def test_why_a_pair_does_not_train_has_its_sentence():
    why = untrained(made=9, train=1, marked=2)
    assert len(why) == 2 and why.keys() <= REASONS.keys()
