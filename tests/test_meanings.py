"""Every word that a run gives its reasons in, and every term of a score, has a sentence."""

import re
from pathlib import Path

import spr_plugin
from spr_plugin.data import depth
from spr_plugin.data.pictures import REASONS as OF_PICTURES
from spr_plugin.meanings import LEFT_OUT, REASONS, meaning_of
from spr_plugin.pairing import untrained
from spr_plugin.recipes.actial.meanings import MEANINGS as ACTIAL
from spr_plugin.recipes.actial.motion import MOTIONS
from spr_plugin.recipes.actial.pairs import MAKERS
from spr_plugin.recipes.base import UNREADABLE
from spr_plugin.recipes.by_text import MEANINGS as RIGHT_OR_WRONG
from spr_plugin.recipes.spatial_ssrl.meanings import MEANINGS as SPATIAL
from spr_plugin.recipes.spatial_thinker.meanings import MEANINGS as THINKER
from spr_plugin.recipes.spr.meanings import MEANINGS

ROOT = Path(spr_plugin.__file__).parent


def words(pattern, *files):
    """What the pattern's groups find in the code of these files and folders."""
    texts = [
        path.read_text()
        for file in files
        for path in ([ROOT / file] if file.endswith(".py") else (ROOT / file).rglob("*.py"))
    ]
    return {word for text in texts for found in re.findall(pattern, text) for word in [found] if word}


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


def test_a_recipe_s_own_meaning_comes_first_and_nobody_s_is_empty():
    assert meaning_of("none_worse", {"none_worse": "Mine."}) == "Mine."
    assert meaning_of("none_worse", {}) == REASONS["none_worse"] and meaning_of("lab", {}) == ""
    assert meaning_of("small", {}, LEFT_OUT) == LEFT_OUT["small"] and meaning_of("small", {}) == ""


def test_what_is_said_of_answers_that_are_right_or_wrong_has_its_sentence():
    given = words(r'"((?:all_)?(?:right|wrong))"', "recipes/by_text.py")
    assert len(given) == 4 and given | {"asked_already"} == RIGHT_OR_WRONG.keys()


def test_what_spatial_ssrl_says_has_its_sentence():
    recipe = "recipes/spatial_ssrl"
    given = words(r'Refused\("(\w+)"\)', recipe) | words(r'BadDepth\("(\w+)"\)', "data/depth.py")
    given |= {depth.MISSING, depth.UNREADABLE, depth.ANOTHER_SIZE, depth.ORDINAL, depth.SHALLOW}
    assert len(given) == 12 and given | {"exact", "format", "S"} | RIGHT_OR_WRONG.keys() == SPATIAL.keys()


def test_what_actial_says_has_its_sentence():
    recipe = "recipes/actial"
    given = words(r'Refused\("(\w+)"\)', recipe) | words(r'skipped\["(\w+)"\]', "data/poses.py")
    given |= {f"no_{motion}" for motion in MOTIONS.keys() - MAKERS.keys()}
    assert len(given) == 12 and given | {"exact", "format", "S"} | RIGHT_OR_WRONG.keys() == ACTIAL.keys()


def test_what_spatial_thinker_says_has_its_sentence():
    recipe = "recipes/spatial_thinker"
    own = words(r'skipped\["(\w+)"\]', recipe) - LEFT_OUT.keys()
    own |= words(r'return "(\w+)"', f"{recipe}/recipe.py")
    own |= words(r'(?:return|else) "(too_few\w+)"', f"{recipe}/recipe.py")
    own |= words(r'"(\w+)": 0\.0', f"{recipe}/reward.py")
    assert len(own) > 10 and own | {"S", "no_question", "unknown_id"} == THINKER.keys()


def test_why_a_pair_does_not_train_has_its_sentence():
    why = untrained(made=9, train=1, marked=2)
    assert len(why) == 2 and why.keys() <= REASONS.keys()
