"""Indexing a COCO file of Objects365's make: boxes a second, peak memory, time to open it again; json.load
beside it.

    python benchmarks/annotations.py [--percent 1 3 10] [--whole] [--json FILE]

A percentage is that of Objects365 v2: 1.74 M pictures, 25.4 M boxes, 5.7 GB. Each measurement runs in a
process of its own.
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
from collections import Counter
from pathlib import Path

from spr_plugin.files import write_json

IMAGES, BOXES, CATEGORIES = 1_742_292, 25_407_598, 365
SAMPLED = 10_000


def write(path: Path, share: float) -> int:
    """A file of that share of Objects365, boxes in random order; the number of boxes."""
    rng, images, boxes = random.Random(0), int(IMAGES * share), int(BOXES * share)
    with open(path, "w") as file:
        file.write('{"images": [')
        for id in range(images):
            name = f"images/v1/patch{id % 16}/objects365_v1_{id:08d}.jpg"
            record = {"height": 512, "id": id, "license": 5, "width": 769, "file_name": name, "url": ""}
            file.write(", " * (id > 0) + json.dumps(record))
        names = [{"id": id + 1, "name": f"thing {id}"} for id in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(names)}, "annotations": [')
        for id in range(boxes):
            x, y, w, h = (rng.random() * side for side in (700, 400, 60, 90))
            record = {
                "id": id,
                "iscrowd": 0,
                "isfake": 0,
                "area": w * h,
                "isreflected": 0,
                "bbox": [x, y, w, h],
            }
            record |= {"image_id": rng.randrange(images), "category_id": rng.randrange(CATEGORIES) + 1}
            file.write(", " * (id > 0) + json.dumps(record))
        file.write("]}")
    return boxes


def measure(what: str, path: str) -> None:
    """In a process of its own: print seconds and peak MB of one way to read the file."""
    from spr_plugin.data.annotations import file_name_of
    from spr_plugin.data.coco_index import CocoIndex

    start = time.perf_counter()
    if what == "json.load":
        json.load(open(path))
    else:
        index = CocoIndex(path, file_name_of, Counter())
    seconds = time.perf_counter() - start
    row = {
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if what == "open":
        start = time.perf_counter()
        ids = random.Random(0).sample(index.ids, min(SAMPLED, len(index.ids)))
        row["boxes_read"] = sum(len(index.annotations(id)) for id in ids)
        row["read_s_per_10k_images"] = (time.perf_counter() - start) / len(ids) * SAMPLED
    print(json.dumps(row))


def measured(what: str, path: Path, cache: str) -> dict:
    command = [sys.executable, __file__, "--measure", what, str(path)]
    out = subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": cache}, capture_output=True, text=True)
    return json.loads(out.stdout) if out.returncode == 0 else {"failed": out.stderr.strip().splitlines()[-1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--percent", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--whole", action="store_true", help="also 100 %%")
    parser.add_argument("--json")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(*arguments.measure)
    result = {
        "boxes_per_s": {},
        "boxes_per_cpu_s": {},
        "peak_rss_mb": {},
        "reopen_s": {},
        "read_s_per_10k_images": {},
        "json_load": {},
        "index_mb": {},
        "file_mb": {},
    }
    for percent in [*arguments.percent, *([100] if arguments.whole else [])]:
        with tempfile.TemporaryDirectory() as folder:
            path, cache, key = Path(folder) / "objects365.json", str(Path(folder) / "cache"), f"{percent:g}%"
            boxes = write(path, percent / 100)
            built, opened = measured("build", path, cache), measured("open", path, cache)
            result["boxes_per_s"][key], result["boxes_per_cpu_s"][key] = (
                boxes / built["seconds"],
                boxes / built["cpu_seconds"],
            )
            result["peak_rss_mb"][key] = max(built["peak_rss_mb"], opened["peak_rss_mb"])
            result["reopen_s"][key], result["read_s_per_10k_images"][key] = (
                opened["seconds"],
                opened["read_s_per_10k_images"],
            )
            result["file_mb"][key] = path.stat().st_size / 1e6
            result["index_mb"][key] = sum(file.stat().st_size for file in Path(cache).rglob("*.sqlite")) / 1e6
            if percent <= 10:
                plain = measured("json.load", path, cache)
                result["json_load"][key] = (
                    {"boxes_per_s": boxes / plain["seconds"], "peak_rss_mb": plain["peak_rss_mb"]}
                    if "seconds" in plain
                    else plain
                )
            print(f"{key:>5} of Objects365, {boxes:,} boxes, {result['file_mb'][key]:.0f} MB: {result['boxes_per_s'][key]:,.0f} boxes/s, "  # noqa: E501
                  f"peak {result['peak_rss_mb'][key]:.0f} MB, opened again in {opened['seconds']:.2f} s, index {result['index_mb'][key]:.0f} MB; "  # noqa: E501
                  f"10k pictures' records in {opened['read_s_per_10k_images']:.1f} s; json.load {result['json_load'].get(key)}", flush=True)  # fmt: skip  # noqa: E501
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
