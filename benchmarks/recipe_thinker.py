"""SpatialThinker's share of benchmarks/recipes.py: questions and judged answers a minute on one core.

    python benchmarks/recipe_thinker.py [--scenes N] [--json FILE]

On scenes of 96 px of the tiny world with their exact graphs. Queries are counted from the file to what is
logged, answers from text to reward, repair and reward again: right ones, some of whose boxes were moved.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spr_plugin.config import SPRConfig
from spr_plugin.files import write_json
from spr_plugin.formats import box_format
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe

ROOT = Path(__file__).parents[1]
ASKED = 10_000  # queries a minute on one core


def measured(scenes: int = 500) -> dict[str, float]:
    """Rates of this process's own seconds, so that a loaded machine tells the same."""
    with tempfile.TemporaryDirectory() as folder:
        words = f"--spr {scenes} --sft 1 --val 1 --test 1 --geometry".split()
        script = ROOT / "examples" / "tiny_world" / "scenes.py"
        subprocess.run([sys.executable, script, folder, *words], check=True)
        settings = Path(folder, "recipe.json")
        settings.write_text(json.dumps({"spatial_thinker": {"per_picture": 6}}))
        config = SPRConfig(
            spr=True,
            spr_recipe="spatial_thinker",
            spr_recipe_config=str(settings),
            spr_annotations=f"{folder}/graphs/spr.json",
        )
        recipe = find_recipe(config, box_format("llava", "pad"))
        begin = time.process_time()
        queries = recipe.queries(Source(None, f"{folder}/images"))
        asked = time.process_time() - begin
        texts = [[recipe.worked(query).replace("[1", "[2")] for query in queries]
        begin = time.process_time()
        for query, row in zip(queries, texts):
            recipe.judge([], [query], [row])
        judged = time.process_time() - begin
    return {
        "queries": len(queries),
        "queries_per_minute": 60 * len(queries) / asked,
        "answers_per_minute": 60 * len(queries) / judged,
        "of_asked": 60 * len(queries) / asked / ASKED,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--json")
    wanted = parser.parse_args()
    result = {"spatial_thinker": measured(wanted.scenes)}
    print(json.dumps(result, indent=2))
    if wanted.json:
        write_json(Path(wanted.json), result)


if __name__ == "__main__":
    main()
