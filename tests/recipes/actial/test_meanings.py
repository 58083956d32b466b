"""Every word of Actial has a sentence."""

from spr_plugin.recipes.actial.meanings import MEANINGS as ACTIAL
from spr_plugin.recipes.actial.motion import MOTIONS
from spr_plugin.recipes.actial.pairs import MAKERS
from spr_plugin.recipes.by_text import MEANINGS as RIGHT_OR_WRONG
from tests.meant import words


def test_what_actial_says_has_its_sentence():
    recipe = "recipes/actial"
    given = words(r'Refused\("(\w+)"\)', recipe) | words(r'skipped\["(\w+)"\]', "data/poses.py")
    given |= {f"no_{motion}" for motion in MOTIONS.keys() - MAKERS.keys()}
    assert len(given) == 12 and given | {"exact", "format", "S"} | RIGHT_OR_WRONG.keys() == ACTIAL.keys()
