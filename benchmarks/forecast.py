"""Memory of each stage beside its forecast, and the time of a run beside that of doctor's trial:
``python benchmarks/forecast.py [--sizes 3M 20M 80M 300M 1B] [--json FILE]``.

Each size is a process of its own: LLaVA's own script makes a LLaVA of random weights, 576 image tokens a
picture, and the stages run on it as in a run. A stage's peak is the largest resident memory since it began
(Linux: ``clear_refs``), above that of the process as it had imported everything. Freed memory goes back to
the system at once (``MALLOC_*``), so that the peak is what a stage holds, not what an earlier one has left.
Seconds are CPU seconds of one thread. ``--again`` measures nothing: it forecasts anew for what the file has.
"""

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from spr_plugin.files import read_json, write_json  # noqa: E402
from spr_plugin.forecast import Plan, Shape, Stack, Trial, Workload, memory  # noqa: E402

SHARE, LEAST, OF_TIME = 0.15, 200e6, 0.3  # the bounds: of memory, bytes at least; of time
TOWER = (128, 256, 4, 4)  # width, inner, layers, heads
HALF = ("--bf16", "True", "--lora_enable", "True", "--lora_r", "16")
# name → width, inner, layers, heads, vocabulary of the language model; tower; flags of LLaVA's script
SIZES = {
    "3M": ((192, 512, 6, 6, 400), TOWER, ()),
    "20M": ((384, 1024, 10, 6, 4000), TOWER, ()),
    "80M": ((640, 1792, 8, 10, 32000), TOWER, ()),
    "300M": ((1024, 2816, 18, 16, 32000), (512, 2048, 6, 8), HALF),
    "1B": ((2048, 5504, 20, 16, 32000), (1024, 4096, 12, 16), HALF),
}
NAMES = "hidden_size intermediate_size num_hidden_layers num_attention_heads".split()
SAMPLED = 6
FLAGS = {
    "spr_regions": 4,
    "spr_more_than": 0,
    "spr_epochs": 1.0,
    "spr_max_new_tokens": 32,
    "spr_sample_batch": SAMPLED,
    "spr_batch_size": 2,
    "spr_clip": str(ROOT / "examples" / "tiny_world" / "clip"),
}
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def resident(name: str = "VmRSS") -> int:
    """Bytes of this process, now or (VmHWM) at most since the peak was set back."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))


def set_back() -> None:
    """Begin a new peak."""
    Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def peak(found: dict, stage: str, imported: int):
    set_back()
    start = time.process_time()
    yield
    found[stage] = {"bytes": resident("VmHWM") - imported, "seconds": time.process_time() - start}


def one(size: str, folder: Path) -> dict:
    """The figures of one size."""
    import random_llava
    import torch
    from live_llava import live_llava

    from spr_plugin.hooks import shims

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    language, tower, flags = SIZES[size]
    kinds = dict(zip(NAMES, language)) | {"num_key_value_heads": language[3], "vocab_size": language[4]}
    seen = dict(zip(NAMES, tower)) | {"image_size": 336, "patch_size": 14}
    random_llava.write(folder, kinds, seen)
    shims.install()
    import llava.train.train  # noqa: F401
    import peft  # noqa: F401
    import trl  # noqa: F401

    import spr_plugin.tools.trial  # noqa: F401

    gc.collect()
    imported = resident()
    host = live_llava(
        folder / "llm", folder / "clip", folder / "data.json", folder / "images", folder / "out", *flags
    )
    return stages(host, folder, imported)


def stages(host, folder: Path, imported: int) -> dict:
    """Trial, sampling, scoring, DPO with its looks, saving, on a live host."""
    from spr_plugin import dpo
    from spr_plugin.config import SPRConfig
    from spr_plugin.config.candidates import CandidatesFlags
    from spr_plugin.config.dpo import DPOFlags
    from spr_plugin.judging import judge_all
    from spr_plugin.opening import first_round, start_of
    from spr_plugin.runs.layout import Folder
    from spr_plugin.sampling.stage import sample
    from spr_plugin.tools import trial
    from spr_plugin.training import cost, entry
    from spr_plugin.training.shapes import shape_of

    config = SPRConfig(spr=True, spr_only=True, **FLAGS)
    first = first_round(host, config)
    queries = start_of(first).queries
    found: dict = {}
    loaded = resident() - imported  # the weights, and what loading left
    place = Folder.under(folder / "run")
    cost.time = SimpleNamespace(perf_counter=time.process_time)  # the machine may be shared
    times = trial.tried(first, queries[:2], Folder.under(folder / "trial"), len(queries)).trial
    with peak(found, "sampling", imported):
        flags = config.only(CandidatesFlags)
        sample(host, queries, first.recipe, flags, place.log("candidates", 0), place.log("batches", 0))
    answers = place.log("candidates", 0).read()
    with peak(found, "scoring", imported):
        judge_all(queries, first.recipe, host.trainer.args.device, answers, place.log("scores", 0))
    watched = queries[:1]
    pairs = [trial.pair_of(first, query, answers) for query in queries if query not in watched]
    dpo.choose_trainable(host, config.only(DPOFlags))
    found |= dpo_and_looks(host, first, pairs, watched, config.only(DPOFlags), place, imported)
    shape = shape_of(host, FLAGS["spr_clip"])
    with peak(found, "save", imported):
        entry.save(host, config.only(DPOFlags), place, {})
        dpo.merge_adapter(host.trainer.model)
        host.save(str(folder / "saved"))
    plan = replace(
        trial.plan_of(host, config, shape, pairs, len(queries)), probes=len(watched), prompts=SAMPLED
    )
    run = Workload(
        len(queries), 1, config.spr_batch_size, 1, config.spr_epochs, len(watched), config.spr_probe_steps
    )
    whole = sum(found[stage]["seconds"] for stage in ("sampling", "scoring", "dpo"))
    hours = {"seconds": whole, "trial": asdict(times), "run": asdict(run)}
    return {"loaded": loaded, "stages": found, "time": hours, "shape": asdict(shape), "plan": asdict(plan)}


def dpo_and_looks(host, first, pairs, watched, flags, place, imported: int) -> dict:
    """DPO's peak apart from that of its looks, and the seconds of both."""
    from spr_plugin import dpo
    from spr_plugin.dpo.probe import Watch

    found: dict = {}
    probe = Watch.probe

    def apart(watch, step):
        before = found.get("dpo", {"bytes": 0})["bytes"]
        found["dpo"] = {"bytes": max(before, resident("VmHWM") - imported)}
        earlier = found.get("probe", {"bytes": 0, "seconds": 0.0})
        with peak(found, "probe", imported):
            values = probe(watch, step)
        found["probe"] = {key: max(value, earlier[key]) for key, value in found["probe"].items()}
        set_back()
        return values

    Watch.probe = apart
    set_back()
    start = time.process_time()
    dpo.improve(host, first.recipe, pairs, watched, flags, place, "")
    found["dpo"] = {
        "bytes": max(found["dpo"]["bytes"], resident("VmHWM") - imported),
        "seconds": time.process_time() - start,
    }
    Watch.probe = probe
    return found


def beside(figures: dict) -> dict:
    """The figures of one size with forecasts and errors in them."""
    shape = {**figures["shape"], **{name: Stack(**figures["shape"][name]) for name in ("language", "tower")}}
    told = memory(Shape(**shape), Plan(**figures["plan"]))
    for stage, one in figures["stages"].items():
        one["forecast"], one["error"] = told[stage], told[stage] / one["bytes"] - 1
        one["within"] = abs(told[stage] - one["bytes"]) <= max(SHARE * one["bytes"], LEAST)
    hours = figures["time"]
    hours["forecast"] = Trial(**hours["trial"]).seconds(Workload(**hours["run"]))
    hours["error"] = hours["forecast"] / hours["seconds"] - 1
    hours["within"] = abs(hours["error"]) <= OF_TIME
    return figures


def measured(size: str) -> dict:
    """The figures of one size, of a process of its own."""
    with tempfile.TemporaryDirectory(prefix="size-") as folder:
        out = Path(folder) / "figures.json"
        words = [sys.executable, __file__, "--one", size, "--folder", folder, "--json", str(out)]
        subprocess.run(words, check=True, env={**os.environ, **ALLOCATOR})
        return read_json(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--json")
    parser.add_argument("--again", action="store_true", help="measure nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        write_json(options.json, one(options.one, options.folder))
        return
    sizes = (read_json(options.json) or {}).get("sizes", {}) if options.json else {}
    for size in sizes if options.again else options.sizes:
        sizes[size] = beside(sizes[size] if options.again else measured(size))
        told = {stage: f"{one['error']:+.1%}" for stage, one in sizes[size]["stages"].items()}
        print(f"{size}: {told}, time {sizes[size]['time']['error']:+.1%}", flush=True)
        if options.json:
            write_json(options.json, {"sizes": sizes, "clock": "CPU seconds, one thread"})


if __name__ == "__main__":
    main()
