"""``spr inspect`` on a large run: how long a page takes, and whether memory stays as it was.

    python benchmarks/inspecting.py [--pairs 10000] [--json FILE]

The run is written by the project's own writers; its answers are made up, six to a query, its objects have
names of an open vocabulary, and its pictures are two files, one in ten of twelve megapixels. Times are of
whole requests to the application, without a socket, the middle and the longest of each kind; wall time, and
CPU time beside it for a machine that is shared.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.files import write_json
from spr_plugin.formats import llava
from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.queries import log_queries
from spr_plugin.recipes.base import JudgedAnswer
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.sampling.plan import candidate_id

FORM, SPACE, ANSWERS = llava("pad"), Space.pixels(640, 480), 6
NAMES = [
    f"{size} {colour} {thing} number {number}"
    for size in ("small", "large")
    for colour in ("red", "blue", "striped")
    for thing in ("cup", "dog", "chair", "tree", "person")
    for number in range(1000)
]
LARGE, EVERY = (4000, 3000), 10  # a picture of a camera, which every tenth query shows
RECIPE = SPR(SPRConfig(), FORM)


def write_run(folder: Folder, images: Path, count: int) -> None:
    """A run of ``count`` pairs; a tenth as many queries were skipped."""
    rng, queries = random.Random(0), []
    Image.new("RGB", (640, 480), "gray").save(images / "0.jpg")
    Image.effect_noise(LARGE, 60).save(images / "large.jpg")
    bind(folder, settings_of(SPRConfig(spr=True), FORM.describe()), Changes({}, ()))
    for number in range(count + count // 10):
        boxes = [_box(rng) for _ in range(rng.randint(5, 9))]
        objects = tuple(Annotation(place, rng.choice(NAMES), box, False) for place, box in enumerate(boxes))
        image = AnnotatedImage(f"{number:012}.jpg", str(images / "0.jpg"), 640, 480, objects)
        if number % EVERY == 0:
            image = replace(image, path=str(images / "large.jpg"), width=LARGE[0], height=LARGE[1])
        queries.append(region_query(image, Box(0, 0, 640, 480, SPACE), number))
    log_queries(folder, RECIPE, queries, Counter())
    logs = {name: folder.log(name) for name in ("candidates", "scores", "pairs")}
    for number, query in enumerate(queries):
        rows = [_answer(rng, query, index, paired=number < count) for index in range(ANSWERS)]
        logs["candidates"].append(
            *({"id": row["id"], "query": query.id, "kind": "plain", "index": index, "raw": row["text"],
               "text": row["text"]} for index, row in enumerate(rows))
        )  # fmt: skip
        truth = [list(one.box.xyxy) for one in query.truth]
        logs["scores"].append({"id": query.id, "recipe": "spr", "truth": truth, "candidates": rows})
        made = make_pair(query, RECIPE.question(query), rows, best_over_worst)
        skip = {"id": query.id, "query": query.id, "skip": made}
        logs["pairs"].append({**(skip if isinstance(made, str) else asdict(made)), "recipe": "spr"})
    for log in logs.values():
        log.close()


def _box(rng: random.Random) -> Box:
    x, y = rng.uniform(0, 500), rng.uniform(0, 380)
    return Box(x, y, x + rng.uniform(20, 130), y + rng.uniform(20, 95), SPACE)


def _answer(rng: random.Random, query, index: int, paired: bool) -> dict:
    text = FORM.render((one.label, _box(rng)) for one in query.truth)
    repaired = FORM.render((one.label, one.box) for one in query.truth)
    terms = {name: rng.random() for name in ("s_crop", "s_local", "s_sem", "s_loc")}
    score, better = rng.random() / 2, 0.5 + rng.random() / 2
    why = None if paired else "no_box"
    answer = JudgedAnswer(
        text, terms if paired else {}, score if paired else None, why, repaired if paired else text,
        {**terms, "kept": 1.0} if paired else {}, better if paired else None, why, why,
    )  # fmt: skip
    return {"id": candidate_id(query.id, "plain", index), **asdict(answer)}


def memory_mb() -> float:
    """Of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def page_times(folder: Folder, visits: int) -> dict:
    from starlette.testclient import TestClient

    from spr_plugin.tools.inspect.app import application
    from spr_plugin.tools.inspect.indexed import IndexedRun

    begun, cpu_begun, before = time.perf_counter(), time.process_time(), memory_mb()
    run = IndexedRun(folder.path)
    result = {"index_s": time.perf_counter() - begun, "index_cpu_s": time.process_time() - cpu_begun}
    result |= {"index_mb": memory_mb() - before}
    browser = TestClient(application(run), base_url="http://127.0.0.1:8765")
    rows = sorted(run.rows(), key=lambda row: row.id)
    rng = random.Random(1)
    pairs, queries = [row.pair for row in rows if row.pair], [row.id for row in rows]
    large = [row.id for row in rows if int(row.picture.partition(".")[0]) % EVERY == 0]
    small = sorted({*queries} - {*large})
    addresses = {
        "list": lambda: "/",
        "page": lambda: f"/?page={rng.randint(1, len(rows) // 50)}",
        "filter": lambda: f"/?category={rng.choice(NAMES)}&state=pair&low=0.7",
        "sort": lambda: "/?sort=widest",
        "search": lambda: f"/?text={rng.choice(rows).picture}",
        "search_often": lambda: f"/?text={rng.choice(NAMES)}",
        "pair": lambda: f"/pair/{rng.choice(pairs)}",
        "pair_of_sorted": lambda: f"/pair/{rng.choice(pairs)}?sort=widest&state=pair",
        "query": lambda: f"/query/{rng.choice(queries)}",
        "picture": lambda: f"/picture/{rng.choice(small)}/0",
        "thumbnail": lambda: f"/picture/{rng.choice(small)}/0?small",
        "large_thumbnail": lambda: f"/picture/{rng.choice(large)}/0?small",
    }
    settled = None
    for name, address in addresses.items():
        spent, cpu = [], []
        for _ in range(visits):
            begun, cpu_begun = time.perf_counter(), time.process_time()
            response = browser.get(address())
            spent.append((time.perf_counter() - begun) * 1e3)
            cpu.append((time.process_time() - cpu_begun) * 1e3)
            assert response.status_code == 200
        result |= {f"{name}_ms": statistics.median(spent), f"{name}_longest_ms": max(spent)}
        result |= {f"{name}_cpu_ms": statistics.median(cpu), f"{name}_kb": len(response.content) / 1024}
        settled = settled or memory_mb()
    # After the first kind of page, in which templates are compiled.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result | {
        "grown_mb": memory_mb() - settled,
        "visits": visits * len(addresses),
        "peak_rss_mb": peak,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--visits", type=int, default=40, help="of each kind of page")
    parser.add_argument("--json")
    parser.add_argument("--of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of:  # in a process of its own, whose memory holds nothing else
        return print(json.dumps(page_times(Folder(arguments.of), arguments.visits)))
    with tempfile.TemporaryDirectory() as root:
        folder, images = Folder.under(Path(root) / "out"), Path(root) / "images"
        images.mkdir()
        write_run(folder, images, arguments.pairs)
        size = sum(file.stat().st_size for file in folder.path.rglob("*.jsonl")) / 2**20
        command = [sys.executable, __file__, "--visits", str(arguments.visits), "--of", str(folder)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        result = {"pairs": arguments.pairs, "logs_mb": size, **told}
    print("\n".join(f"{key:24} {value:,.2f}" for key, value in result.items()))
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
