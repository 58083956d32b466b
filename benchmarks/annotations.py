"""A COCO file of Objects365's make: to index it, to open it again, to draw and deal regions of it.

    python benchmarks/annotations.py [--percent 1 3 10] [--whole] [--regions 100000] [--run DIR] [--json FILE]

A percentage is that of Objects365 v2: 1.74 M pictures, 25.4 M boxes, 5.7 GB. Each measurement runs in a
process of its own, whose memory is the most that it ever held. ``--regions`` draws as many of the largest
file as a run would, keeps their log and plan, and opens both again; eight ranks' shares of the batches and
pictures are simulated on the lengths of the answers in the run DIR, ``make demo``'s if none is named: an
answer to a region is as long as one of that run's to a region of as many objects, and a batch takes as long
as its longest. CPU seconds, since a machine is seldom quiet.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from PIL import Image

from spr_plugin.files import write_json

IMAGES, BOXES, CATEGORIES = 1_742_292, 25_407_598, 365
SAMPLED = 10_000
SIZE = (769, 512)
RANKS = 8
DEMO = Path(__file__).parents[1] / "demo" / "llava-spr" / "spr"


def write(path: Path, images: int, boxes: int) -> None:
    """A file in the layout of Objects365's, the boxes of a picture all over it. Streamed, and the boxes are
    some thousand again and again: neither memory nor much time.
    """
    draw = random.Random(0).random
    shapes = []
    for _ in range(5003):  # a prime, so that they come at all pictures
        x, y, w, h = draw() * 700, draw() * 400, 1 + draw() * 60, 1 + draw() * 90
        shapes.append(f'"area": {w * h}, "isreflected": 0, "bbox": [{x}, {y}, {w}, {h}]')
    with open(path, "w") as file:
        file.write('{"images": [')
        for id in range(images):
            record = {"height": SIZE[1], "id": id, "license": 5, "width": SIZE[0]}
            record |= {"file_name": name_of(id), "url": ""}
            file.write(", " * (id > 0) + json.dumps(record))
        names = [{"id": id + 1, "name": f"thing {id}"} for id in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(names)}, "annotations": [')
        for start in range(0, boxes, 10_000):
            file.write(", " * (start > 0))
            file.write(
                ", ".join(
                    f'{{"id": {id}, "iscrowd": 0, "isfake": 0, {shapes[id % len(shapes)]}, '
                    f'"image_id": {int(draw() * images)}, "category_id": {id % CATEGORIES + 1}}}'
                    for id in range(start, min(start + 10_000, boxes))
                )
            )
        file.write("]}")


def name_of(id: int) -> str:
    return f"images/v1/patch{id % 16}/objects365_v1_{id:08d}.jpg"


# --- in a process of its own


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """Seconds and peak memory of one part after the other."""

    def __init__(self):
        self.row: dict = {"imported_rss_mb": peak_mb()}
        self.begin()

    def begin(self) -> None:
        self.begun, self.cpu_begun = time.perf_counter(), time.process_time()

    def part(self, name: str) -> None:
        self.row |= {
            f"{name}_s": time.perf_counter() - self.begun,
            f"{name}_cpu_s": time.process_time() - self.cpu_begun,
            f"{name}_rss_mb": peak_mb(),
        }
        self.begin()


def build(file: str) -> dict:
    from spr_plugin.data.annotations import file_name_of
    from spr_plugin.data.coco_index import CocoIndex

    clock = Clock()
    CocoIndex(file, file_name_of, Counter())
    clock.part("index")
    return clock.row


def reopen(file: str) -> dict:
    """The index that is kept, and then the records of some pictures."""
    from spr_plugin.data.annotations import file_name_of
    from spr_plugin.data.coco_index import CocoIndex

    clock = Clock()
    index = CocoIndex(file, file_name_of, Counter())
    clock.part("index")
    for id in random.Random(0).sample(index.ids, min(SAMPLED, len(index.ids))):
        index.annotations(id)
    clock.part("10k_pictures")
    return clock.row


def json_load(file: str) -> dict:
    clock = Clock()
    json.load(open(file))
    clock.part("all")
    return clock.row


def pictures(file: str, count: str) -> dict:
    """Have files where the pictures lie that are drawn first: links to one."""
    from spr_plugin.data.annotations import CocoImages
    from spr_plugin.recipes.spr.regions import shuffled

    folder = Path(file).parent
    Image.new("RGB", SIZE).save(folder / "one.jpg")
    for patch in range(16):
        (folder / name_of(patch)).parent.mkdir(parents=True, exist_ok=True)
    ids = CocoImages(file, str(folder), Counter()).ids
    drawn = shuffled(SimpleNamespace(ids=ids, image=ids.__getitem__), 0)
    for id in islice(drawn, int(int(count) * 1.02)):  # one in fifty has too few objects
        path = folder / name_of(int(id))
        path.is_symlink() or path.symlink_to(folder / "one.jpg")
    return {}


def recipe_and_config():
    from spr_plugin.config import SPRConfig
    from spr_plugin.formats import box_format
    from spr_plugin.plugins import ask

    config = SPRConfig(spr=True)
    return ask("spr_recipe", config=config, box_format=box_format("llava", "pad")), config


def draw(file: str, count: str) -> dict:
    """The regions of a run, their log, and the plan of their batches."""
    from spr_plugin.data.annotations import CocoImages
    from spr_plugin.queries import log_queries
    from spr_plugin.recipes.spr.regions import region_queries
    from spr_plugin.runs.layout import Folder
    from spr_plugin.sampling.plan import batch_plan, left_to_do

    recipe, config = recipe_and_config()
    folder, skipped, clock = Folder(Path(file).parent / "spr"), Counter(), Clock()
    images = CocoImages(file, str(Path(file).parent), skipped)
    queries = list(region_queries(images, seed=0, limit=int(count), skipped=skipped))
    clock.part("regions")
    log_queries(folder, recipe, queries, skipped)
    clock.part("log")
    left_to_do(
        folder.log("candidates"),
        folder.log("batches"),
        lambda: batch_plan(queries, recipe, config.spr_sample_batch),
        config.spr_samples,
    )
    clock.part("plan")
    size = sum(path.stat().st_size for path in folder.path.rglob("*.jsonl")) / 1e6
    return {"regions": len(queries), "looked_at_and_left": dict(skipped), "log_mb": size, **clock.row}


def go_on(file: str, run: str) -> dict:
    """What is drawn, as a run that goes on opens it; eight ranks' shares of the work."""
    from spr_plugin.judging import by_pictures
    from spr_plugin.queries import held_queries
    from spr_plugin.runs.layout import Folder
    from spr_plugin.sampling.plan import left_to_do, prompts_in

    recipe, config = recipe_and_config()
    folder, clock = Folder(Path(file).parent / "spr"), Clock()
    queries = held_queries(folder, recipe)
    clock.part("log")
    batches, _ = left_to_do(folder.log("candidates"), folder.log("batches"), list, config.spr_samples)
    clock.part("plan")
    drawn, rng = lengths_of(Folder(run)), random.Random(0)
    fewest, most = min(drawn), max(drawn)
    of_query = {query.id: drawn[min(max(len(query.truth), fewest), most)] for query in queries}

    def steps(batch: dict) -> int:
        return max(max(rng.choices(of_query[query], k=config.spr_samples)) for query, _ in batch["asks"])

    def scored(about: list) -> int:
        return sum(sum(rng.choices(of_query[query.id], k=6)) for query in about)

    clock.begin()
    sampling, scoring = of_linear(batches, prompts_in, steps), of_linear(by_pictures(queries), len, scored)
    clock.part("shares")
    return {f"of_linear_{RANKS}_ranks": {"sampling": sampling, "scoring": scoring}, **clock.row}


def lengths_of(folder) -> dict[int, list[int]]:
    """Characters of a run's answers, by the number of objects of their regions."""
    objects = {id: len(record["truth"]) for id, record in folder.log("queries").read().items()}
    found = defaultdict(list)
    for record in folder.log("candidates").read().values():
        found[objects[record["query"]]].append(len(record["raw"]))
    return {count: lengths for count, lengths in found.items() if len(lengths) > 50}


def of_linear(work: list, size, cost) -> float:
    """How much faster the ranks are together than one, by their number: the slowest is waited for."""
    from spr_plugin.training import ranks

    costs = {id(piece): cost(piece) for piece in work}
    loads = []
    for rank in range(RANKS):
        with mock.patch.multiple(ranks, rank=lambda rank=rank: rank, world=lambda: RANKS):
            loads.append(sum(costs[id(piece)] for piece in ranks.share(work, size)))
    return sum(loads) / RANKS / max(loads)


MEASURES = {measure.__name__: measure for measure in (build, reopen, json_load, pictures, draw, go_on)}


# --- all of them


def measured(what: str, file: Path, cache: Path, *more: str) -> dict:
    command = [sys.executable, __file__, "--measure", what, str(file), *more]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    row = json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True).stdout)
    print(f"{file.stem:>5} % {what:10} {row}", flush=True)
    return row


def figures(folder: Path, percent: float, regions: int, run: str) -> dict:
    """The figures of one size by name."""
    file, cache = folder / f"{percent:g}.json", folder / "cache"
    boxes = int(BOXES * percent / 100)
    write(file, int(IMAGES * percent / 100), boxes)
    built, opened = measured("build", file, cache), measured("reopen", file, cache)
    found = {
        "boxes_per_s": boxes / built["index_s"],
        "boxes_per_cpu_s": boxes / built["index_cpu_s"],
        "imported_rss_mb": built["imported_rss_mb"],
        "peak_rss_mb": built["index_rss_mb"],
        "reopen_s": opened["index_s"],
        "reopen_cpu_s": opened["index_cpu_s"],
        "reopen_rss_mb": opened["index_rss_mb"],
        "read_s_per_10k_images": opened["10k_pictures_s"],
        "index_mb": sum(path.stat().st_size for path in cache.rglob("*.sqlite")) / 1e6,
        "file_mb": file.stat().st_size / 1e6,
    }
    if percent <= 10:
        plain = measured("json_load", file, cache)
        found["json_load"] = {"boxes_per_s": boxes / plain["all_s"], "peak_rss_mb": plain["all_rss_mb"]}
    if regions:
        measured("pictures", file, cache, str(regions))
        found["regions"] = {
            "new": measured("draw", file, cache, str(regions)),
            "opened_again": measured("go_on", file, cache, run),
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--percent", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--whole", action="store_true", help="also 100 %%")
    parser.add_argument("--regions", type=int, default=0, help="draw as many of the largest file")
    parser.add_argument("--run", default=str(DEMO), help="whose answers' lengths are dealt to them")
    parser.add_argument("--json")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, *given = arguments.measure
        return print(json.dumps(MEASURES[what](*given)))
    if arguments.regions and not (Path(arguments.run) / "candidates").is_dir():
        parser.error(f"--run {arguments.run}: holds no answers; `make demo` makes some, or name another run")
    sizes, result = [*arguments.percent, *([100] if arguments.whole else [])], {}
    for percent in sizes:
        regions = arguments.regions if percent == sizes[-1] else 0
        with tempfile.TemporaryDirectory() as folder:
            for name, figure in figures(Path(folder), percent, regions, arguments.run).items():
                result.setdefault(name, {})[f"{percent:g}%"] = figure
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
