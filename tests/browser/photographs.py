"""A finished run on photographs, for pages that are to be looked at: real regions, scores, repair and pairs,
and answers that no model gave. The photographs ship with scikit-image; their boxes are tests/photos'.
"""

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import CocoImages
from spr_plugin.files import write_json
from spr_plugin.formats import llava
from spr_plugin.judging import judge_queries
from spr_plugin.pairing import PreferencePair, best_over_worst, make_pair
from spr_plugin.queries import log_queries
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.regions import region_queries
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.runs.steps import StepLog
from spr_plugin.sampling.plan import candidate_id
from tests.photos import photos

TESTS = Path(__file__).parents[1]
CLIP = TESTS.parent / "examples" / "tiny_world" / "clip"
FORM = llava("pad")
STEPS = 40
VAGUE = "It is a nice picture with some things in it."


def moved(box: Box, rng: random.Random, share: float) -> Box:
    """By up to `share` of its sides, each edge alone."""
    x1, y1, x2, y2 = box.xyxy
    by = lambda length: rng.uniform(-share, share) * length
    edges = x1 + by(box.width), y1 + by(box.height), x2 + by(box.width), y2 + by(box.height)
    return Box(*edges, box.space).clip()


def answers(query, rng: random.Random) -> list[str]:
    """Most objects or all, in any order, with boxes that are a little or far off."""
    said = []
    for share in (0.03, 0.1, 0.16, 0.3):
        objects = rng.sample(query.truth, rng.randint(len(query.truth) // 2 + 1, len(query.truth)))
        *first, last = [FORM.render([(one.label, moved(one.box, rng, share))]) for one in objects]
        said.append(f"In this part there are {', '.join(first)} and {last}.")
    return said


def write(output: Path, images: Path, seed: int = 0) -> Path:
    """Photographs in `images`, and ``output/spr`` with three regions of each of them."""
    photos.write(images)
    config = SPRConfig(
        spr=True,
        spr_annotations=str(photos.ANNOTATIONS),
        spr_image_folder=str(images),
        spr_clip=str(CLIP),
        spr_samples=4,
        spr_prompts=["plain"],
        spr_min_kept=0.6,
    )
    folder, recipe, rng = Folder.under(output), SPR(config, FORM).on("cpu"), random.Random(seed)
    skipped = Counter(too_few_objects=2)
    photographs = CocoImages(config.spr_annotations, config.spr_image_folder, skipped)
    queries = list(region_queries(photographs, seed=seed, regions_per_image=3, skipped=skipped))
    bind(folder, settings_of(config, FORM.describe()), Changes({}, ()))
    log_queries(folder, recipe, queries, skipped)
    for number, query in enumerate(queries):
        texts = answers(query, rng)
        if number % 5 == 4:  # none of its answers may be chosen
            texts = [VAGUE, f"{texts[0].partition(']')[0]}, and more", "A thing [0.1, 0.2"]
        rows = [
            {"id": candidate_id(query.id, "plain", index), "query": query.id, "kind": "plain"}
            | {"index": index, "raw": text, "text": text}
            for index, text in enumerate(texts)
        ]
        folder.log("candidates").append(*rows)
        (record,) = judge_queries([query], [rows], recipe)
        folder.log("scores").append(record)
        made = make_pair(query, recipe.question(query), record["candidates"], best_over_worst)
        skip = {"id": query.id, "query": query.id, "skip": made}
        row = asdict(made) if isinstance(made, PreferencePair) else skip
        folder.log("pairs").append({**row, "recipe": "spr"})
    steps = StepLog(folder)
    steps.path.parent.mkdir(exist_ok=True)
    for step in range(STEPS):
        learned = 1 - 0.93**step
        sides = {"rewards/chosen": 0.4 * learned, "rewards/rejected": -0.9 * learned}
        probed = {} if step % 10 else {"probe/s_loc": 0.55 + 0.1 * learned}
        steps.append({"step": step, "epoch": step / STEPS, "loss": 0.7 - 0.3 * learned, **sides, **probed})
    write_json(folder.policy / "index.json", {})
    write_json(folder.exit, {})
    return output


def results(folder: Path, images: Path, noise: float, times: int = 6) -> Path:
    """Samples as lmms-eval writes them, of a model whose boxes are off by up to `noise` of their sides, and
    as great a share of them by far: each object of the photographs asked for several times.
    """
    from spr_plugin.eval_tasks import rec

    folder.mkdir(parents=True)
    content, lines = json.loads(photos.ANNOTATIONS.read_text()), []
    names = {row["id"]: row["name"] for row in content["categories"]}
    pictures = {row["id"]: row for row in content["images"]}
    for number, row in enumerate(content["annotations"] * times):
        picture, rng = pictures[row["image_id"]], random.Random(f"{number} {noise}")
        width, height, (x, y, w, h) = picture["width"], picture["height"], row["bbox"]
        share = 0.5 if rng.random() < noise else noise
        box = moved(Box(x, y, x + w, y + h, Space.pixels(width, height)), rng, share).xyxy
        shares = [value / side for value, side in zip(box, (width, height) * 2)]
        doc = {
            "id": str(number),
            "image_id": str(row["image_id"]),
            "image": str(images / picture["file_name"]),
        }
        doc |= {"width": width, "height": height, "bbox": [x, y, x + w, y + h], "box_format": "llava:square"}
        answer = f"[{', '.join(f'{value:.3f}' for value in shares)}]"
        asked = f"Where is the {names[row['category_id']]}? Answer with its box."
        logged = {"doc_id": number, "input": asked, "filtered_resps": answer}
        lines.append(json.dumps({**logged, **rec.process_results(doc, [answer])}) + "\n")
    (folder / "20300101_000000_samples_spr_refcoco_val.jsonl").write_text("".join(lines))
    return folder
