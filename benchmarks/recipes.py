"""How many questions a minute one core makes of pictures, and judges: Spatial-SSRL on the tiny world's scenes
with their depth, and on photographs.

    python benchmarks/recipes.py [--scenes 200] [--questions 2000] [--json FILE]

The photographs are scikit-image's own, at 640 pixels a side and less; without depth, as most are. Each answer
is applied to its picture before a question counts, as in any run.
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
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe

SCENES = Path(__file__).parents[1] / "examples" / "tiny_world" / "scenes.py"
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
ANSWERS = 6  # a question, judged together


def photographs(folder: Path) -> Path:
    import skimage

    folder.mkdir()
    for name in PHOTOGRAPHS:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        picture.thumbnail((640, 640))
        picture.save(folder / f"{Path(name).stem}.jpg", quality=92)
    return folder


def scenes(folder: Path, count: int) -> Path:
    words = ["--spr", str(count), "--sft", "1", "--val", "1", "--test", "1", "--geometry"]
    subprocess.run([sys.executable, SCENES, folder, *words], check=True, stdout=subprocess.DEVNULL)
    return folder


def measured(pictures: Path, section: dict, questions: int, folder: Path) -> dict:
    """Of this process's own CPU seconds, which other work on the machine does not stretch."""
    file = folder / "recipe.json"
    file.write_text(json.dumps({"spatial_ssrl": section}))
    flags = {"spr_recipe": "spatial_ssrl", "spr_recipe_config": str(file), "spr_regions": questions}
    recipe, skipped = find_recipe(SPRConfig(spr=True, **flags), None), Counter()
    start = time.process_time()
    queries = list(recipe.queries(Source(image_folder=str(pictures), skipped=skipped)))
    made = time.process_time() - start
    texts = [[recipe.worked(query)] * ANSWERS for query in queries]
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
        folder = Path(name)
        world = scenes(folder / "world", wanted.scenes)
        depth = {"depth": str(world / "depth" / "spr"), "distance": "code"}
        results = {
            "scenes": measured(world / "images" / "spr", depth, wanted.questions, folder),
            "photographs": measured(photographs(folder / "photographs"), {}, wanted.questions // 20, folder),
        }
    for what, row in results.items():
        print(f"{what}: {row['questions_per_minute']:,.0f} questions a minute ({row['questions']})")
    if wanted.json:
        write_json(wanted.json, results)


if __name__ == "__main__":
    main()
