"""Every word of Spatial-SSRL has a sentence."""

from spr_plugin.data import depth
from spr_plugin.recipes.by_text import MEANINGS as RIGHT_OR_WRONG
from spr_plugin.recipes.spatial_ssrl.meanings import MEANINGS as SPATIAL
from tests.meant import words


def test_what_spatial_ssrl_says_has_its_sentence():
    recipe = "recipes/spatial_ssrl"
    given = words(r'Refused\("(\w+)"\)', recipe) | words(r'BadDepth\("(\w+)"\)', "data/depth.py")
    given |= {depth.MISSING, depth.UNREADABLE, depth.ANOTHER_SIZE, depth.ORDINAL, depth.SHALLOW}
    assert len(given) == 12 and given | {"exact", "format", "S"} | RIGHT_OR_WRONG.keys() == SPATIAL.keys()
