"""Every word of SpatialThinker has a sentence."""

from spr_plugin.meanings import LEFT_OUT
from spr_plugin.recipes.spatial_thinker.meanings import MEANINGS as THINKER
from tests.meant import words


def test_what_spatial_thinker_says_has_its_sentence():
    recipe = "recipes/spatial_thinker"
    own = words(r'skipped\["(\w+)"\]', recipe) - LEFT_OUT.keys()
    own |= words(r'return "(\w+)"', f"{recipe}/recipe.py")
    own |= words(r'(?:return|else) "(too_few\w+)"', f"{recipe}/recipe.py")
    own |= words(r'"(\w+)": 0\.0', f"{recipe}/reward.py")
    assert len(own) > 10 and own | {"S", "no_question", "unknown_id"} == THINKER.keys()
