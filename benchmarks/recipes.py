"""How many questions a minute one core makes of pictures, and judges, by recipe.

    python benchmarks/recipes.py [--scenes 200] [--questions 2000] [--json FILE]

On the tiny world's scenes of 96 pixels: Spatial-SSRL with their depth, SpatialThinker with their exact
graphs, Actial on walks around posed scenes. "photographs" are Spatial-SSRL on scikit-image's own, at 640
pixels a side and less; without depth, as most are. Spatial-SSRL's answers are applied to their pictures
before a question counts, as in any run; SpatialThinker's boxes are moved, so that some are repaired.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.files import write_json
from spr_plugin.formats import box_format
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe

WORLD = Path(__file__).parents[1] / "examples" / "tiny_world"
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
ANSWERS = 6  # a question, judged together
WANTED = 10_000  # questions a minute of scenes, and of photographs a tenth


def photographs(folder: Path) -> Path:
    import skimage

    folder.mkdir()
    for name in PHOTOGRAPHS:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        picture.thumbnail((640, 640))
        picture.save(folder / f"{Path(name).stem}.jpg", quality=92)
    return folder


def written(script: str, folder: Path, *words) -> Path:
    arguments = [sys.executable, WORLD / f"{script}.py", folder, *map(str, words)]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return folder


def measured(name: str, section: dict, pictures: Path, questions: int, folder: Path, **flags) -> dict:
    """Of this process's own CPU seconds, which other work on the machine does not stretch."""
    file = folder / "recipe.json"
    file.write_text(json.dumps({name: section}))
    flags |= {"spr_recipe": name, "spr_recipe_config": str(file), "spr_regions": questions}
    recipe, skipped = find_recipe(SPRConfig(spr=True, **flags), box_format("llava", "pad")), Counter()
    start = time.process_time()
    queries = list(recipe.queries(Source(image_folder=str(pictures), skipped=skipped)))
    made = time.process_time() - start
    texts = [[recipe.worked(query).replace("[1", "[2")] * ANSWERS for query in queries]
    start = time.process_time()
    recipe.judge([], queries, texts)
    judged = time.process_time() - start
    return {
        "questions": len(queries),
        "questions_per_minute": 60 * len(queries) / made,
        "answers_judged_per_second": ANSWERS * len(queries) / judged,
        "by_task": Counter(query.task for query in queries),
        "refused": dict(skipped),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--json")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, count, most = Path(name), wanted.scenes, wanted.questions
        words = ["--spr", count, "--sft", 1, "--val", 1, "--test", 1, "--geometry"]
        world = written("scenes", folder / "world", *words)
        walks = written("posed", folder / "walks", "--scenes", count, "--layout", "binary")
        depth = {"depth": str(world / "depth" / "spr"), "distance": "code"}
        photos = photographs(folder / "photographs")
        graphs = {"spr_annotations": str(world / "graphs" / "spr.json")}
        results = {
            "scenes": measured("spatial_ssrl", depth, world / "images" / "spr", most, folder),
            "photographs": measured("spatial_ssrl", {}, photos, most // 20, folder),
            "spatial_thinker": measured(
                "spatial_thinker", {"per_picture": 6}, world / "images", most, folder, **graphs
            ),
            "actial": measured("actial", {}, walks, most, folder),
        }
    for what, row in results.items():
        row["of_wanted"] = row["questions_per_minute"] / (WANTED / 10 if what == "photographs" else WANTED)
        print(f"{what}: {row['questions_per_minute']:,.0f} questions a minute ({row['questions']})")
    if wanted.json:
        write_json(wanted.json, results)


if __name__ == "__main__":
    main()
