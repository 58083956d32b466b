"""Scene graphs of one picture, and recipes on them."""

import json

import pytest
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.formats import box_format
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe

FORM = box_format("llava", "pad")
GRAPHS = {
    "a.png": {
        "objects": [
            {"id": "red circle.3", "bbox": [0, 0, 20, 20]},
            {"id": "blue square.1", "bbox": [60, 30, 100, 50]},
            {"id": "green ring.2", "bbox": [40, 0, 44, 4]},
            {"id": "cyan cross.4", "bbox": [24, 30, 36, 46]},
        ],
        "relationships": [{"subject": "red circle.3", "predicate": "left of", "object": "blue square.1"}],
    }
}


@pytest.fixture
def made(tmp_path):
    """``made(settings of the recipe, flags…)`` → (recipe, its source)."""
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    (tmp_path / "graphs.json").write_text(json.dumps(GRAPHS))

    def make(settings=None, form=FORM, **flags):
        (tmp_path / "recipe.json").write_text(json.dumps({"spatial_thinker": settings or {}}))
        flags = {
            "spr_annotations": str(tmp_path / "graphs.json"),
            "spr_recipe_config": str(tmp_path / "recipe.json"),
            **flags,
        }
        recipe = find_recipe(SPRConfig(spr=True, spr_recipe="spatial_thinker", **flags), form)
        return recipe, Source(None, str(tmp_path))

    return make
