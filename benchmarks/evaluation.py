"""What evaluation costs: answers parsed and scored, clustered bootstrap intervals, what our entry point adds
to lmms-eval's start, its indexing of tasks, and answering itself (benchmarks/answering.py); and whether the
embedded LLaVA's answers are those of lmms-eval's own model.

    python benchmarks/evaluation.py [--parts scoring index answering agreement answering_hf] [--json FILE]

One process on one thread. Every figure is the median of `--rounds` rounds in which all rows take turns (of
answering three at most), in wall seconds and in CPU seconds (on a busy machine the second is the honest one).
The bare row of a pair is the work without ours: a regular expression and IoU in plain Python for scoring; a
loop over draws with numpy's indexing for the bootstrap.

Keys: ``score_100k_s`` by family (target < 30), ``bootstrap_10k_of_30k_s`` (target < 10), ``entry_point_ms``
(target < 50), ``index_s`` (target < 1; ``index_without_s`` is lmms-eval's own), ``speedup_vs_llava`` (target
3 or more), ``of_bound`` (target 0.8 or more), ``speedup_vs_llava_hf`` (of ``spr_hf``; that part needs decord,
which lmms-eval's own model imports), ``agreement`` (of ``answers`` so many are ``equal``; target
99.9 %).
"""

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from spr_plugin.boxes import Box, Space
from spr_plugin.eval_tasks import metrics, rec
from spr_plugin.eval_tasks.hub import ROOT
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.eval_tasks.run import lmms_eval_command
from spr_plugin.eval_tasks.saved_results import read_run, spoken
from spr_plugin.files import read_json, write_json

WORLD = Path(__file__).parents[1] / "examples" / "tiny_world"
ANSWERS, EXAMPLES, PICTURES = 100_000, 30_000, 10_000
SHARE = 20  # a round scores 1/SHARE of the answers, and figures are scaled up; the cost is linear
FAMILIES = ("ferret", "llava:pad", "qwen-vl", "qwen2.5-vl", "internvl")
IMPORT = (
    "import importlib, sys, time, lmms_eval.models.registry_v2; [sys.modules.pop(name) for name in"
    " list(sys.modules) if name.startswith('spr_plugin')]; start = time.perf_counter(), time.process_time();"
    " from spr_plugin.eval_tasks.register import register; register(); print(time.perf_counter() - start[0],"
    " time.process_time() - start[1])"
)

# Medians of three in one process: of CPU seconds, since other work on the machine is none of lmms-eval's.
INDEX = """
import statistics, time, lmms_eval.models
from lmms_eval.tasks import TaskManager

def seconds():
    taken = []
    for _ in range(3):
        start = time.process_time()
        TaskManager()
        taken.append(time.process_time() - start)
    return statistics.median(taken)

ours = seconds()
TaskManager._get_task_and_group = TaskManager._get_task_and_group.__wrapped__
print(ours, seconds())
"""


def documents(family: str, count: int) -> list[tuple[dict, str]]:
    """Documents with an answer each, a box near the truth in a sentence."""
    rng, form, documents = random.Random(0), named_format(family), []
    for number in range(count):
        width, height = rng.randint(300, 640), rng.randint(300, 640)
        x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
        box = [x, y, x + rng.uniform(20, width / 2), y + rng.uniform(20, height / 2)]
        shift = rng.gauss(0, 0.1) * (box[2] - box[0])
        near = Box(box[0] + shift, box[1], box[2] + shift, box[3], Space.pixels(width, height))
        doc = {
            "id": str(number),
            "image_id": str(number // 3),
            "image": "a.jpg",
            "width": width,
            "height": height,
            "bbox": box,
            "box_format": family,
        }
        documents.append((doc, form.render([("the object", near)])))
    return documents


def score(pairs) -> list:
    return [rec.process_results(doc, [answer]) for doc, answer in pairs]


def bare_score(pairs) -> list:
    """The least that any scorer does, on Ferret's text: find four numbers, scale them, one IoU."""
    pattern, overlaps = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]"), []
    for doc, answer in pairs:
        match = pattern.search(answer)
        a, b = (
            [float(v) * doc[("width", "height")[k % 2]] / 1000 for k, v in enumerate(match.groups())],
            doc["bbox"],
        )
        common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        overlaps.append(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))
    return overlaps


def bare_bootstrap(values: np.ndarray, clusters: np.ndarray, resamples: int) -> list:
    """One draw after another with index arrays, one figure."""
    rng, order = np.random.default_rng(0), np.argsort(clusters, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    return [
        values[np.concatenate([groups[c] for c in rng.integers(0, len(groups), len(groups))])].mean()
        for _ in range(resamples)
    ]


def timed(function, *arguments) -> tuple[float, float]:
    start = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def entry_point() -> tuple[float, float]:
    out = subprocess.run(
        [sys.executable, "-P", "-c", IMPORT], capture_output=True, text=True, check=True
    ).stdout
    wall, cpu = map(float, out.split()[-2:])
    return 1000 * wall, 1000 * cpu


def indexing() -> dict[str, float]:
    """Seconds in which lmms-eval finds its tasks and ours, as a command does, and without our entry point."""
    command = [sys.executable, "-P", "-c", INDEX]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(zip(("index_s", "index_without_s"), map(float, out.split()[-2:])))


def scoring(rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds by row."""
    pairs = {family: documents(family, ANSWERS // SHARE) for family in FAMILIES}
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, PICTURES, EXAMPLES)
    items = [
        item
        for payloads in score(documents("ferret", EXAMPLES))
        for item in payloads[metrics.DETAILS]["items"]
    ]
    columns, values = (
        metrics.box_columns(items),
        np.array([item["iou"] >= 0.5 for item in items], dtype=float),
    )
    rows = {
        f"score_100k_s {family}": lambda family=family: [SHARE * s for s in timed(score, pairs[family])]
        for family in FAMILIES
    }
    rows["score_100k_s bare (ferret)"] = lambda: [SHARE * s for s in timed(bare_score, pairs["ferret"])]
    rows[f"bootstrap_10k_of_30k_s, {len(columns)} figures"] = lambda: timed(
        metrics.intervals, columns, clusters
    )
    rows["bootstrap_10k_of_30k_s bare, 1 figure"] = lambda: [
        500 * s for s in timed(bare_bootstrap, values, clusters, 20)
    ]
    rows["entry_point_ms"] = entry_point
    measured = {name: [] for name in rows}
    for _ in range(rounds):
        for name, row in rows.items():
            measured[name].append(row())
    found = {
        name: {"wall": statistics.median(t[0] for t in times), "cpu": statistics.median(t[1] for t in times)}
        for name, times in measured.items()
    }
    return found


def agreement(folder: Path, count: int = 220) -> dict:
    """The embedded LLaVA's answers by lmms-eval's ``llava`` and by ``spr_llava``, as lmms-eval logs them."""
    sys.path.insert(0, str(WORLD))  # scripts, no package
    import scenes

    scenes.write_evaluation(folder, "val", count, 1, 17)
    ours = lmms_eval_command(WORLD / "llava", folder / "ours", "spr_tiny_world_rec", None, "auto", "cpu")
    theirs = lmms_eval_command(WORLD / "llava", folder / "theirs", "spr_tiny_world_rec", None, 1, "cpu")
    theirs = ["llava" if word == "spr_llava" else word for word in theirs]
    theirs[theirs.index("--model_args") + 1] += ",device_map=auto"
    answers = []
    for command, name in ((theirs, "theirs"), (ours, "ours")):
        environment = {**os.environ, ROOT: str(folder), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        subprocess.run(command, check=True, env=environment)
        tasks = read_run(folder / name).tasks
        answers.append(
            {(task, id): spoken(one)[1] for task, rows in tasks.items() for id, one in rows.items()}
        )
    first, second = answers
    equal = sum(second[asked] == text for asked, text in first.items())
    return {"answers": len(first), "equal": equal, "share": equal / len(first)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("scoring", "index", "answering", "agreement")
    parser.add_argument("--parts", nargs="+", default=parts, choices=(*parts, "answering_hf"))
    parser.add_argument("--rounds", type=int, default=5, help="of scoring; answering has up to three")
    parser.add_argument("--json", type=Path, help="keeps what another run wrote there of other parts")
    arguments = parser.parse_args()
    results: dict = {}
    if "scoring" in arguments.parts:
        results["rows"] = scoring(arguments.rounds)
        print(f"{'':46}{'wall':>10}{'CPU':>10}")
        for name, row in results["rows"].items():
            print(f"{name:46}{row['wall']:10.2f}{row['cpu']:10.2f}")
    if "index" in arguments.parts:
        results |= indexing()
    for part in ("answering", "answering_hf"):
        if part in arguments.parts:
            import answering
            import torch

            torch.set_num_threads(1)
            measured = answering.measured if part == "answering" else answering.measured_hf
            with tempfile.TemporaryDirectory() as folder:
                results |= measured(Path(folder), min(arguments.rounds, 3))
    if "agreement" in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            print(results.setdefault("agreement", agreement(Path(folder))))
    numbers = {name: value for name, value in results.items() if not isinstance(value, dict)}
    print("\n".join(f"{name:46}{value:20.2f}" for name, value in numbers.items()))
    if arguments.json:
        known = read_json(arguments.json) or {}
        load = {f"load {part}": os.getloadavg()[0] for part in arguments.parts}
        context = {"cpus": os.cpu_count(), "python": sys.version.split()[0], **load}
        write_json(arguments.json, {**known, **results, **context})


if __name__ == "__main__":
    main()
