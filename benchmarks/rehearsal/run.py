"""Commands of README and docs/train.md on models of true shapes with random weights, and what each stage
takes beside its forecast: ``python benchmarks/rehearsal/run.py [--shapes SHAPE …] [--json FILE]``.

Weights are written once, under ``--folder``. The host's own script runs with ``--spr_only`` on photographs
that scikit-image ships; the changed flags are in the JSON. Stages are told by what the run itself says and
logs: *start* imports, loads and asks what can be asked, *entry* keeps the host's weights, then *sampling*,
*scoring*, *dpo*, its first look at what is held out (*probe*; the last one counts to *dpo*), *save*, and
*load*, a process of its own, by the host's own loader. Memory is that of all processes, *imported* of one
that has imported everything; a forecast is of what comes on top. What was written counts by the files under
OUTPUT_DIR.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HERE), str(ROOT)]

import commands  # noqa: E402
import psutil  # noqa: E402
import shapes  # noqa: E402
import weights  # noqa: E402
from commands import Command  # noqa: E402
from watching import Limits, Watched, by_stage, watch  # noqa: E402

from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.files import read_json, remove, write_json  # noqa: E402
from spr_plugin.forecast import Shape, memory  # noqa: E402
from spr_plugin.lines import say, say_error  # noqa: E402
from spr_plugin.runs.layout import Folder  # noqa: E402
from spr_plugin.runs.log import BEGUN  # noqa: E402
from spr_plugin.runs.steps import StepLog  # noqa: E402
from tests.photos import photos  # noqa: E402

LIMITS = Limits(seconds=3600, bytes=20 << 30)
IMPORTED = 3 << 29  # bytes, about, before anybody has looked


def rehearsed(name: str, one: shapes.Rehearsed, folder: Path) -> dict:
    """The figures of one shape.

    Raises:
        UserError: it does not fit, or a command of it fails.
    """
    shape = needed(name, one, folder)
    weights.write(one, folder)
    write_data(folder / "data")
    # LLaVA's loader goes by these words.
    out = folder / f"{weights.checkpoint_name(one)}-spr{'-lora' if one.saves_adapter else ''}"
    remove(out)
    out.mkdir(parents=True)
    model = folder / weights.checkpoint_name(one)
    command = commands.of_shape(one, model, folder / "data", out)
    environment = {**os.environ, **command.environment}
    say(f"{name}: {' '.join(command.words)}")
    ran = watch(command.words, command.folder, environment, out, folder / "run.log", LIMITS)
    run = Folder.under(out)
    stages = by_stage(ran, begins(ran, run))
    loaded, told = loading(one, model, out, folder, command)
    stages |= loaded
    lengths = [*run.log("lengths").read().values()]
    plan = shapes.plan_of(one, *longest(one, lengths))
    for stage, size in memory(shape, plan).items():
        stages[stage]["forecast"] = size
    facts = {
        **told,
        "steps": StepLog(run).read()[-1]["step"],
        "pairs": len(lengths),
        "changed": command.changed,
        "shape": asdict(shape),
        "plan": asdict(plan),
    }
    return stages | facts


def longest(one: shapes.Rehearsed, lengths: list[dict]) -> tuple[int, int]:
    """Tokens of the longest pair's prompt and of its answer, as :class:`spr_plugin.forecast.Plan` counts
    them; where the host's model expands a picture, its placeholder was counted as one."""
    answer = max(int(each["chosen_tokens"]) for each in lengths)
    row = max(int(each["tokens"]) for each in lengths)
    return row - 2 * answer + (0 if one.tower else one.image_tokens - 1), answer


def begins(ran: Watched, run: Folder) -> list[tuple[str, float]]:
    """When each stage began, by the run's own lines and logs."""
    return [
        ("start", ran.start),
        ("entry", ran.said("spr: queries: ")),
        ("sampling", read_json(run.path / "candidates" / BEGUN)["time"]),
        ("scoring", ran.said("spr: candidates: ")),
        ("dpo", ran.said("spr: scores: ")),
        ("probe", ran.said("spr: dry step ")),
        ("dpo", StepLog(run).read()[0]["time"]),
        ("save", ran.said("spr: dpo: ")),
    ]


def loading(
    one: shapes.Rehearsed, model: Path, out: Path, folder: Path, command: Command
) -> tuple[dict, dict]:
    """The stage *load*, and what it told: ``parameters``, and ``imported`` in bytes."""
    words = [sys.executable, str(HERE / "load.py"), one.host, str(model), str(folder / "clip"), str(out)]
    environment = {**os.environ, **command.environment}
    ran = watch(words, command.folder, environment, out, folder / "load.log", LIMITS)
    return by_stage(ran, [("load", ran.start)]), json.loads(ran.lines[-1][1])


# --- before it starts


def needed(name: str, one: shapes.Rehearsed, folder: Path) -> Shape:
    """The shape in numbers. UserError where memory or disk has no room for it."""
    model, clip = weights.numbers(weights.model_sizes(one)), weights.numbers(weights.clip_sizes(one))
    tower = 0 if one.tower else weights.numbers(weights.tower_sizes(one))
    shape = shapes.shape_of(one, shapes.BF16 * (model + tower), clip)
    most = IMPORTED + max(memory(shape, shapes.plan_of(one)).values())
    free = min(psutil.virtual_memory().available, LIMITS.bytes)
    if most > free:
        raise UserError(f"{name}: needs {most / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free for it")
    copies = (
        4 if one.saves_adapter else 2
    )  # in entry, best, policy, and as the host saves it; or at both ends
    size = shapes.BF16 * (model + clip) + copies * shape.saved
    folder.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(folder).free
    if size > room:
        raise UserError(
            f"{name}: needs {size / 2**30:.1f} GiB of disk in {folder}, {room / 2**30:.1f} are free"
        )
    return shape


def write_data(folder: Path) -> None:
    """The photographs, their boxes, and a question about each for the host's own data set."""
    photos.write(folder / "images")
    content = read_json(photos.ANNOTATIONS)
    write_json(folder / "annotations.json", content)
    turns = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "A photograph."}]
    write_json(
        folder / "data.json",
        [
            {"id": str(row["id"]), "image": row["file_name"], "conversations": turns}
            for row in content["images"]
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=shapes.TRUE, default=list(shapes.TRUE))
    parser.add_argument("--reduced", action="store_true", help="two narrow layers each: for tests")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "rehearsal")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    failed = False
    for name in options.shapes:
        one = (shapes.REDUCED if options.reduced else shapes.TRUE)[name]
        try:
            figures = rehearsed(name, one, options.folder / name)
        except UserError as error:
            say_error(error)
            failed = True
            continue
        known = (options.json and read_json(options.json)) or {}
        if options.json:
            write_json(options.json, {**known, name: figures})
        told = (
            f"{stage} {figures[stage]['seconds']:.0f} s"
            for stage in figures
            if "seconds" in str(figures[stage])
        )
        say(f"{name}: {', '.join(told)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
