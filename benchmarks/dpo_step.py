"""Time and peak memory of one DPO step, ours beside what people use: ``python benchmarks/dpo_step.py --json
FILE``.

One process, one set of weights and pairs, rows alternated, medians. A step is forward and backward to the
gradients of a LoRA adapter, without an optimizer; every row starts from the same input embeddings (image
features given), so that the language model is compared and nobody pays for a vision tower, but for the two
rows that say so. Memory is the peak that a step allocates beyond the weights. dpo_rows.py says what each row
does.

The arithmetic bound of a shape is the time of ``full`` divided as its multiplications are: matrix products
alone, at full's rate.
"""

import argparse
import json
import resource
import statistics

import torch
from dpo_rows import Case

from spr_plugin.files import write_json

REFERENCE_SHAPE = dict(layers=4, hidden=256, vocabulary=32000, image=576, prompt=20, completion=80)
OTHER_SHAPES = {
    "hidden 1024": dict(REFERENCE_SHAPE, hidden=1024),
    "vocabulary 152064": dict(REFERENCE_SHAPE, vocabulary=152064),
    "2880 image tokens": dict(REFERENCE_SHAPE, image=2880),
}
SHAPE_7B = dict(
    layers=32,
    hidden=4096,
    vocabulary=32000,
    image=576,
    prompt=20,
    completion=80,
    heads=32,
    intermediate=11008,
)
ROWS = ("full", "trl", "trl_compacted", "liger", "prefix", "ours", "ours_cold", "limit")
OTHER_ROWS = ("full", "trl_compacted", "liger", "prefix", "ours", "limit")
# The reference shape alone has the names that are promised figures.
OTHER_NAMES = {
    "speedup_vs_full": "faster_than_full",
    "speedup_vs_trl_compacted": "faster_than_trl_compacted",
    "memory_vs_full": "leaner_than_full",
    "over_limit": "times_limit",
}


def fail_when_memory_is_short() -> None:
    """Let an allocation that the machine has no memory for fail, where Linux would grant it and kill the
    process later.
    """
    with open("/proc/meminfo") as info:
        free = next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable"))
    with open("/proc/self/statm") as sizes:
        used = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(
        resource.RLIMIT_AS, (used + int(0.9 * free), resource.getrlimit(resource.RLIMIT_AS)[1])
    )


def seconds_and_bytes(case: Case, steps: int, rows=ROWS) -> dict[str, dict]:
    """row → seconds (median), bytes; None for a row that does not run or does not fit."""
    running, peaks = [], {}
    for row in rows:
        try:
            peaks[row] = case.peak(row)
            case.step(row)
            running.append(row)
        except ImportError:
            peaks[row] = None
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            peaks[row] = None
    seconds = {row: [] for row in running}
    for _ in range(steps):
        for row in running:
            seconds[row].append(case.step(row))
    return {
        row: {"seconds": statistics.median(seconds[row]), "bytes": peaks[row]} if row in running else None
        for row in rows
    }


def check_same(case: Case) -> float:
    """Largest difference of the gradients of ``ours`` from those of ``full``, relative to the largest
    gradient.
    """
    full, ours = case.gradients("full"), case.gradients("ours")
    return ((full - ours).abs().max() / full.abs().max()).item()


def summary(rows: dict[str, dict]) -> dict[str, float | None]:
    def ratio(a, b, key):
        return rows[a][key] / rows[b][key] if rows.get(a) and rows.get(b) else None

    return {
        "speedup_vs_full": ratio("full", "ours", "seconds"),
        "speedup_vs_trl_compacted": ratio("trl_compacted", "ours", "seconds"),
        "memory_vs_full": ratio("full", "ours", "bytes"),
        "over_limit": ratio("ours", "limit", "seconds"),
    }


def table(rows: dict[str, dict]) -> str:
    lines = ["| row | speed | memory | seconds | GiB |", "|---|---|---|---|---|"]
    first = rows.get("full")
    for name, row in rows.items():
        if row is None:
            lines.append(f"| {name} | does not run or fit here | | | |")
            continue
        faster, leaner = (f"{first[key] / row[key]:.2f}×" if first else "" for key in ("seconds", "bytes"))
        lines.append(f"| {name} | {faster} | {leaner} | {row['seconds']:.4f} | {row['bytes'] / 2**30:.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--no-shapes",
        action="store_true",
        help="the reference shape alone, which takes minutes; the others take most of an hour",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not torch.cuda.is_available():  # CUDA reserves more addresses than there is memory
        fail_when_memory_is_short()

    case = Case(REFERENCE_SHAPE, options.pairs, "cpu", torch.float32)
    difference = check_same(case)
    rows = seconds_and_bytes(case, options.steps)
    bound = case.bound()
    del case
    print(f"{table(rows)}\n{bounded(bound)}", flush=True)
    promised = summary(rows)
    out = {
        **promised,
        "gradient_difference": difference,
        "arithmetic_bound": bound,
        "rows": rows,
        "shape": REFERENCE_SHAPE,
    }
    out["machine"] = {
        "threads": options.threads,
        "torch": torch.__version__,
        "steps": options.steps,
        "pairs": options.pairs,
    }
    out["shapes"] = {}
    write(options.json, out)
    for name, shape in {} if options.no_shapes else OTHER_SHAPES.items():
        out["shapes"][name] = other(name, Case(shape, 1, "cpu", torch.float32), options.steps, OTHER_ROWS)
        write(options.json, out)
    if torch.cuda.is_available():
        name = f"7B in bf16 on {torch.cuda.get_device_name()}"  # seconds a step and GiB stand in its table
        out["shapes"][name] = other(name, Case(SHAPE_7B, 1, "cuda", torch.bfloat16), options.steps, ROWS)
    print(json.dumps(promised))
    write(options.json, out)


def other(name: str, case: Case, steps: int, rows: tuple[str, ...]) -> dict:
    """Another shape's figures; those that the first row has no part in are there also where it does not fit
    into memory.
    """
    results, bound = seconds_and_bytes(case, steps, rows), case.bound()
    print(f"\n{name}\n{table(results)}\n{bounded(bound)}", flush=True)
    return {OTHER_NAMES[key]: value for key, value in summary(results).items()} | {
        "bound": bound,
        "rows": results,
        "shape": case.shape,
    }


def bounded(bound: dict[str, float]) -> str:
    return "by multiplications alone, against full: " + ", ".join(
        f"{row} {times:.2f}×" for row, times in bound.items()
    )


def write(path: str | None, out: dict) -> None:
    if path:
        write_json(path, out)


if __name__ == "__main__":
    main()
