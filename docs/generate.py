"""Every generated part of README and of these pages, written between its two markers.

    python docs/generate.py

A part stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`, on any page;
tests/test_docs.py says where one is stale. Nothing is measured here: figures come from committed JSON.
"""

import functools
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

from spr_plugin import forecast
from spr_plugin.cli import commands
from spr_plugin.command_line import flags_table
from spr_plugin.eval_tasks.catalogue import GROUPS, PROTOCOLS, SPLITS, splits_of
from spr_plugin.recipes.actial.settings import ActialSettings
from spr_plugin.recipes.spatial_ssrl.settings import Asking
from spr_plugin.sampling import alone
from spr_plugin.tools import reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)
RESULTS = ROOT / "benchmarks" / "results"

# What README's small table shows of docs/reproduction.json, gains and losses alike.
FIRST = tuple(f"referring expressions, IoU {t}" for t in (0.5, 0.9)) + (
    "the smallest third of the objects, IoU 0.5",
    "phrase grounding, IoU 0.5",
    "descriptions, recall",
    "questions on presence, accuracy",
)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], right: int = 0) -> str:
    """A Markdown table whose last `right` columns are numbers."""
    heads = list(heads)
    lines = [heads, ["---"] * (len(heads) - right) + ["--:"] * right]
    return "\n".join(
        "| " + " | ".join(cells).replace("\n", " ") + " |" for cells in [*lines, *map(list, rows)]
    )


# --- flags and commands


def command_line() -> str:
    """Every `spr` command with its arguments and options."""
    return "\n\n".join(_command(name, command) for name, command in sorted(commands.commands.items()))


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"spr {name}")
    words = " ".join(["spr", name, *command.collect_usage_pieces(context)])
    parts = [f"## `spr {name}`", f"`{words}`", " ".join((command.help or "").split())]
    options = [one.get_help_record(context) for one in command.params if isinstance(one, click.Option)]
    rows = [(f"`{names}`", told.replace("|", "\\|")) for names, told in filter(None, options)]
    if name == "sample":  # it takes flags of a run as a training command does
        parts.append(f"Of a run's flags it takes {', '.join(f'`--{flag}`' for flag in alone.FLAGS)}.")
    return "\n\n".join([*parts, table(["option", ""], rows)] if rows else parts)


# --- lmms-eval


def tasks() -> str:
    """Every task: what it reads and measures."""
    rows = (
        (
            f"`{split.task}`",
            f"`{split.protocol}`",
            f"`{split.folder}/{split.split}`" + (" or the hub" if split.hub else ""),
            str(split.published or ""),
            str(PROTOCOLS[split.protocol].max_new_tokens),
        )
        for split in SPLITS
    )
    return table(["task", "protocol", "under `SPR_DATA_ROOT`", "documents, published", "tokens"], rows, 2)


def groups() -> str:
    how = {None: "no figure of its own", True: "mean over samples", False: "plain mean of its members"}
    rows = (
        (
            f"`{group}`",
            ", ".join(f"`{member}`" for member in members),
            how[weighted and weighted["weight_by_size"]],
            str(len(splits_of([group])) or len(members)),
        )
        for group, (members, weighted) in GROUPS.items()
    )
    return table(["group", "members", "its figure", "tasks"], rows, 1)


def protocols() -> str:
    arrow = {True: "↑", False: "↓", None: ""}
    rows = (
        (
            f"`{name}`",
            ", ".join(f"`{metric}` {arrow[better]}".strip() for metric, better in one.metrics.items()),
        )
        for name, one in PROTOCOLS.items()
    )
    return table(["protocol", "figures (↑ higher is better, ↓ lower)"], rows)


# --- the study


@functools.cache
def study() -> Mapping:
    """The names of examples/tiny_world/reproduce/tables.py."""
    return runpy.run_path(str(ROOT / "examples" / "tiny_world" / "reproduce" / "tables.py"))


def state(wanted: Iterable[str] | None = None) -> str:
    """What SPR gains and loses on the embedded world: all rows, or those of these names."""
    facts = json.loads((ROOT / "docs" / "reproduction.json").read_text(encoding="utf-8"))
    rows = {one["what"]: one for one in facts["state"]}
    names = rows if wanted is None else wanted
    return study()["state"]({**facts, "state": [rows[name] for name in names]})


@functools.cache
def recipes() -> Mapping:
    """The names of examples/tiny_world/recipes_study/report.py."""
    return runpy.run_path(str(ROOT / "examples" / "tiny_world" / "recipes_study" / "report.py"))


# --- benchmarks


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


# --- commands that stand on two pages


def of_readme(start: str) -> str:
    """README's shell block that begins so, as it stands there."""
    blocks = re.findall(r"```sh\n.*?```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if block.removeprefix("```sh\n").startswith(start)]
    return f"<!-- needs weights -->\n{block}"


PARTS: dict[str, Callable[[], str]] = {
    "flags": flags_table,
    **reference.TABLES,
    "commands": command_line,
    "tasks": tasks,
    "groups": groups,
    "protocols": protocols,
    "state": state,
    "state-short": functools.partial(state, FIRST),
    "dpo-step": dpo_step,
    "dpo-shapes": dpo_shapes,
    "sampling": sampling,
    "forecast-7b": forecast_7b,
    "forecast-errors": forecast_errors,
    "rehearsal": rehearsal,
    "figures": all_figures,
    "actial": functools.partial(flags_table, ActialSettings, "setting", ""),
    "spatial-ssrl": functools.partial(flags_table, Asking, "setting", ""),
    "recipes-here": lambda: recipes()["here"](),
    "measured-spatial-ssrl": lambda: recipes()["measured"]("spatial_ssrl"),
    "measured-spatial-thinker": lambda: recipes()["measured"]("spatial_thinker"),
    "llava-command": functools.partial(of_readme, "deepspeed llava/train/train_mem.py"),
    "hugging-face-command": functools.partial(of_readme, "python examples/finetune_vlm.py"),
}


def filled(text: str) -> str:
    """A page with every generated part made anew."""
    return PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]().strip()}\n{match[4]}", text)


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
