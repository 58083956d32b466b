"""What the pages show of the benchmarks: tables of the JSON files in benchmarks/results."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from markdown_table import table

from spr_plugin import forecast

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def result(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


STEPS = {
    "full": "full logits, separate reference (LLaVA-NeXT's way)",
    "trl": "TRL as it runs on a CPU",
    "trl_compacted": "TRL, completion positions alone (as on CUDA)",
    "liger": "Liger's chunked DPO loss",
    "prefix": "prefix sharing alone",
    "ours": "**ours**",
    "ours_cold": "ours, first epoch: vision tower and reference too",
    "limit": "the limit: joined rows, forward and backward, nothing else",
}


def dpo_step() -> str:
    """Speed and memory of one DPO step against full logits; more is better."""
    rows = result("dpo_step")["rows"]
    return table(
        ["one step", "speed", "memory"], ((told, *_against(rows, name)) for name, told in STEPS.items()), 2
    )


def _against(rows: Mapping, name: str) -> list[str]:
    return [f"{rows['full'][kind] / rows[name][kind]:.2f}×" for kind in ("seconds", "bytes")]


def dpo_shapes() -> str:
    rows = (
        (
            shape,
            *(_against(one["rows"], name)[0] for name in ("trl_compacted", "ours", "limit")),
            f"{one['bound']['ours']:.2f}×",
            _against(one["rows"], "ours")[1],
        )
        for shape, one in result("dpo_step")["shapes"].items()
    )
    heads = ["", "TRL, completion positions alone", "ours", "limit", "ours, bound", "ours, memory"]
    return table(heads, rows, 5)


SAMPLERS = {
    "batch1": "batch-1 loop",
    "num_return_sequences": "`generate(num_return_sequences=4)`",
    "limit": "bare forwards at the same batch, transformers' cache",
    "limit_in_place": "bare forwards, a cache that grows in place",
}


def sampling() -> str:
    """CPU time against ours of the same answers."""
    figures = result("sampling")
    rows = (
        (told, *(f"{figures[f'{size}{name}_s'] / figures[f'{size}ours_s']:.2f}×" for size in ("", "large_")))
        for name, told in SAMPLERS.items()
    )
    sizes = (f"{figures[f'{size}parameters'] / 1e6:.1f} M weights" for size in ("", "large_"))
    return table(["CPU time against ours", *sizes], rows, 2)


# The run that the paper tells the hours of, as far as our defaults tell it: answers of so many tokens.
PLAN_7B = forecast.Plan(
    compute=2,
    loaded=2,
    pairs=4,
    prompt=576 + 120,
    answer=100,
    prompts=8,
    samples=2,
    new_tokens=256,
    probes=8,
    checkpointing=True,
    gpu=True,
)
RUN_7B = forecast.Workload(queries=10_000, ranks=1, step=4, accumulation=1, epochs=2.0, watched=16)


def forecast_7b() -> str:
    """Hours and memory of LLaVA-1.5 on a GPU that nobody here has run it on."""
    shapes, rows, told = {"LLaVA-1.5-7B": forecast.LLAVA_7B, "LLaVA-1.5-13B": forecast.LLAVA_13B}, [], []
    for name, shape in shapes.items():
        trial = forecast.by_arithmetic(shape, PLAN_7B, forecast.A100, kinds=3)
        stages = {stage: size / 2**30 for stage, size in forecast.memory(shape, PLAN_7B).items()}
        hours = trial.seconds(RUN_7B) / 3600
        rows.append([name, *(f"{size:.1f}" for size in stages.values())])
        told.append(f"{name}, 10k regions: forecast {hours:.1f} h, {max(stages.values()):.1f} GiB")
    lines = (
        f"{told[0]} on one 80 GB GPU (the paper: about 3 h on one A100).\n{told[1]} (the paper: about 5 h)."
    )
    return f"{lines}\n\n{table(['GiB, forecast', *forecast.STAGES], rows, len(forecast.STAGES))}"


def forecast_errors() -> str:
    """Memory above the imported process beside its forecast, and the time of the whole beside the trial's."""
    sizes = result("forecast")["sizes"]
    rows = ((size, *_foreseen(one)) for size, one in sizes.items())
    stages = [*forecast.STAGES, "time of the whole"]
    missed = [
        f"{size}, {name}"
        for size, one in sizes.items()
        for name, told in (*one["stages"].items(), ("time", one["time"]))
        if not told["within"]
    ]
    few = f"\n\n{len(sizes)} of the five sizes from 3 M to 7 B measured so far." if len(sizes) < 5 else ""
    bound = (
        f"Outside the bounds (15 % or 200 MB of memory, 30 % of time): {'; '.join(missed) or 'none'}.{few}"
    )
    return f"{table(['', *stages], rows, len(stages))}\n\n{bound}"


def _foreseen(one: Mapping) -> Iterable[str]:
    for stage in forecast.STAGES:
        told = one["stages"][stage]
        yield f"{told['bytes'] / 2**20:.0f} MiB, {told['error']:+.0%}"
    yield f"{one['time']['seconds']:.0f} CPU s, {one['time']['error']:+.0%}"


def rehearsal() -> str:
    """What true shapes took by stage, memory beside its forecast; both above the imported process."""
    if not (RESULTS / "rehearsal.json").exists():
        return "No true shape has been measured yet."
    measured = result("rehearsal")
    every = {shape: _rehearsed(one) for shape, one in measured.items()}
    stages = list(next(iter(every.values())))
    told = table(["", *stages], ([shape, *one.values()] for shape, one in every.items()), len(stages))
    lists = "\n".join(
        f"* {shape}: {', '.join(f'`{change}`' for change in one['changed'])}"
        for shape, one in measured.items()
    )
    return f"{told}\n\nChanged in each command:\n\n{lists}"


def _rehearsed(one: Mapping) -> dict[str, str]:
    """Stage → GiB, of them forecast, minutes and GB written."""
    return {
        stage: f"{(told['peak_rss'] - one['imported']) / 2**30:.1f} GiB"
        + (f" ({told['forecast'] / 2**30:.1f})" if "forecast" in told else "")
        + f", {told['seconds'] / 60:.1f} min, {told['bytes'] / 1e9:.2f} GB"
        for stage, told in one.items()
        if isinstance(told, dict) and "peak_rss" in told
    }


def all_figures() -> str:
    """Every figure of every file of results, by file."""
    return "\n\n".join(
        _figures(file.stem, json.loads(file.read_text())) for file in sorted(RESULTS.glob("*.json"))
    )


def _figures(name: str, figures: Mapping) -> str:
    own = [path for path in (f"{name}.py", f"{name}/run.py") if (ROOT / "benchmarks" / path).exists()]
    script = f"`benchmarks/{own[0]}`" if own else "a run on another machine"
    rows = (
        (f"`{key}`", f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in _flat(figures)
    )
    return f"### {name}\n\nBy {script}.\n\n{table(['figure', 'value'], rows, 1)}"


def _flat(figures, front: str = "") -> Iterable[tuple[str, object]]:
    """Nested JSON as (dotted name, value)."""
    if isinstance(figures, dict):
        for key, value in figures.items():
            yield from _flat(value, f"{front}.{key}" if front else key)
    else:
        yield front, figures
