"""A finished run of the tiny world, whose answers no model gave: judged, paired and logged by real code."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from spr_plugin.boxes import Box
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import CocoImages
from spr_plugin.files import write_json
from spr_plugin.formats import llava
from spr_plugin.judging import judge_queries
from spr_plugin.pairing import PreferencePair, best_over_worst, make_pair
from spr_plugin.queries import log_queries
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.regions import RegionQuery, region_queries
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.runs.steps import StepLog

CLIP = Path(__file__).parents[2] / "examples" / "tiny_world" / "clip"
FORM = llava("pad")


def moved(box: Box) -> Box:
    """A tenth of its sides to the right and down."""
    by_x, by_y = box.width / 10, box.height / 10
    return Box(box.x1 + by_x, box.y1 + by_y, box.x2 + by_x, box.y2 + by_y, box.space).clip()


def answers(number: int, query: RegionQuery) -> list[str]:
    """All objects, half of them, one alone, and no answer; boxes a little off for two regions of three. Of
    every fourth region no answer has a box.
    """
    rows = [(one.label, one.box) for one in query.truth]
    if number % 4 == 3:
        return ["Some things.", "A thing [0.1, 0.2"]
    loose = [(label, moved(box)) for label, box in rows] if number % 3 else rows
    return [FORM.render(loose), FORM.render(rows[: len(rows) // 2]), FORM.render(loose[-1:]), "Nothing."]


def write(world: Path, output: Path, regions: int, **flags) -> Path:
    """Write ``output/spr`` with so many regions of a world; a quarter of them has no pair."""
    config = SPRConfig(
        spr=True,
        spr_annotations=str(world / "spr.json"),
        spr_image_folder=str(world / "images"),
        spr_clip=str(CLIP),
        spr_min_kept=0.6,
        **flags,
    )
    folder, recipe = Folder.under(output), SPR(config, FORM).on("cpu")
    images = CocoImages(config.spr_annotations, config.spr_image_folder, Counter())
    queries = list(region_queries(images, seed=0, limit=regions, skipped=Counter()))
    bind(folder, settings_of(config, FORM.describe()), Changes({}, ()))
    log_queries(folder, recipe, queries, {"too_few_objects": 2})
    for number, query in enumerate(queries):
        rows = [
            {"id": f"{query.id}-{index}", "query": query.id, "kind": "plain", "index": index, "text": text}
            for index, text in enumerate(answers(number, query))
        ]
        folder.log("candidates").append(*rows)
        (record,) = judge_queries([query], [rows], recipe)
        folder.log("scores").append(record)
        made = make_pair(query, recipe.question(query), record["candidates"], best_over_worst)
        skip = {"id": query.id, "query": query.id, "skip": made}
        folder.log("pairs").append(asdict(made) if isinstance(made, PreferencePair) else skip)
    steps = StepLog(folder)
    steps.path.parent.mkdir(exist_ok=True)
    for step, loss in enumerate((0.7, 0.5, 0.4)):
        sides = {"rewards/chosen": loss, "rewards/rejected": -loss}
        steps.append({"step": step, "epoch": step / 2, "loss": loss, **sides, "probe/s_loc": 1 - loss})
    write_json(folder.policy / "index.json", {})
    write_json(folder.exit, {})
    return Path(output)
