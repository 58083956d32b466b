"""Every word in which SPR says what is wrong with an answer, and every term, has a sentence."""

from spr_plugin.recipes.spr.meanings import MEANINGS
from tests.meant import words


def test_what_spr_finds_wrong_with_an_answer_has_its_sentence():
    given = words(r'reason = "(\w+)"', "recipes/spr/recipe.py") | words(
        r'or "(no_\w+)"', "recipes/spr/recipe.py"
    )
    given |= words(r'(?:else|few =) "(\w+)"', "recipes/spr/recipe.py")
    given |= words(r'None, "(\w+)"\)', "recipes/spr/answers.py")
    given |= words(r'return "(\w+)"', "recipes/spr/refinement.py")
    expected = "empty no_box not_finite no_box_survived too_few_boxes_kept cannot_cut".split()
    assert {*expected} <= given <= MEANINGS.keys()


def test_spr_s_terms_have_their_sentences():
    terms = words(r'"(s_\w+)": s_', "recipes/spr/scoring.py")
    assert {"s_crop", "s_local", "s_sem", "s_loc"} == terms
    counts = words(r'"(\w+)": float\(', "recipes/spr/missed.py") | words(
        r'"(\w+)": repaired\.share', "recipes/spr/recipe.py"
    )
    assert counts == {"added", "missed", "kept"} and terms | counts | {"S"} <= MEANINGS.keys()
