"""What the study trains and measures on: scenes with exact depth and graphs, worked answers, questions.

A scene's own hash decides its split, so that no scene is in two of these: the cold start is of `sft`, the
stage of `spr`, settings are chosen on `val`, what is reported is asked about `test`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # scripts, no packages
import painting  # noqa: E402
import scenes  # noqa: E402
import wording  # noqa: E402
from spr_plugin.config import SPRConfig  # noqa: E402
from spr_plugin.eval_tasks.model_format import named_format  # noqa: E402
from spr_plugin.files import write_json  # noqa: E402
from spr_plugin.recipes.base import Source  # noqa: E402
from spr_plugin.recipes.find import find_recipe  # noqa: E402
from spr_plugin.recipes.questions import write_pictures  # noqa: E402


def write_pictures_of(out, split, count, seed):
    """OUT/images/SPLIT/*.png, OUT/depth/SPLIT/*.png, OUT/graphs/SPLIT.json."""
    out = Path(out)
    (out / "images" / split).mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(painting.scenes(split, count, seed)):
        Image.fromarray(painting.render(scene)[0]).save(out / "images" / split / f"{index:06d}.png")
    scenes.write_geometry(out, split, count, seed)


def config_of(recipe, pictures, split, section, folder, **flags):
    """(flags of a recipe that asks about such pictures, the folder that they lie in); its settings are
    written to `folder`.
    """
    pictures = Path(pictures).resolve()
    images, own = pictures / "images", {}
    if recipe == "spatial_ssrl":
        images, section = images / split, {**section, "depth": str(pictures / "depth" / split)}
    else:
        own = {"spr_annotations": str(pictures / "graphs" / f"{split}.json")}
    settings = Path(folder) / f"{recipe}.yaml"
    write_json(settings, {recipe: section})
    common = {"spr": True, "spr_recipe": [recipe], "spr_recipe_config": str(settings)}
    return SPRConfig(**common, **own, **flags), images


def write_cold_start(out, recipe, pictures, split, section, worked, talks, seed):
    """OUT/sft.json, OUT/images: `worked` answers to a recipe's questions, and `talks` of the world's own
    conversations about other scenes, so that SPR's questions are not unlearned.

    SpatialThinker's paper has no cold start, nor has `spr data`: the recipe's own `worked` serves both.
    """
    out = Path(out)
    (out / "images" / "sft").mkdir(parents=True, exist_ok=True)
    config, images = config_of(recipe, pictures, split, section, out, spr_regions=worked, spr_seed=seed)
    made, rows = find_recipe(config, named_format("llava")), []
    for query in made.queries(Source(image_folder=str(images))):
        (name,) = write_pictures(query, out / "images")
        turns = [(made.question(query), made.worked(query))]
        rows.append({"id": query.id, "image": name, "conversations": wording.as_conversation(turns)})
    scenes.write_sft(out, talks, 1, wording.NOISE, painting.Hardness())
    rows += json.loads((out / "sft.json").read_text())
    order = np.random.default_rng(seed).permutation(len(rows))
    write_json(out / "sft.json", [rows[place] for place in order])
