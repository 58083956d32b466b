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

sys.path.insert(0, str(Path(__file__).resolve().parent))  # scripts, no package
import benchmark_tables
from markdown_table import table

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

# What README's small table shows of docs/reproduction.json, gains and losses alike.
FIRST = tuple(f"referring expressions, IoU {t}" for t in (0.5, 0.9)) + (
    "the smallest third of the objects, IoU 0.5",
    "phrase grounding, IoU 0.5",
    "descriptions, recall",
    "questions on presence, accuracy",
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
    """What SPR gains and loses on the embedded world: all rows, or those of these names, narrow as README is,
    without what more data gives.
    """
    facts = json.loads((ROOT / "docs" / "reproduction.json").read_text(encoding="utf-8"))
    rows = {one["what"]: one for one in facts["state"]}
    if wanted is not None:
        rows = {name: {key: rows[name][key] for key in ("what", "row")} for name in wanted}
    return study()["state"]({**facts, "state": list(rows.values())})


@functools.cache
def recipes() -> Mapping:
    """The names of examples/tiny_world/recipes_study/report.py."""
    return runpy.run_path(str(ROOT / "examples" / "tiny_world" / "recipes_study" / "report.py"))


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
    "dpo-step": benchmark_tables.dpo_step,
    "dpo-shapes": benchmark_tables.dpo_shapes,
    "sampling": benchmark_tables.sampling,
    "forecast-7b": benchmark_tables.forecast_7b,
    "forecast-errors": benchmark_tables.forecast_errors,
    "rehearsal": benchmark_tables.rehearsal,
    "figures": benchmark_tables.all_figures,
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
