"""``spr status``: how far a run is, from its folder alone, while it runs or after it died.

Reads and never writes; no model, no torch. Records are counted, not read, so that a run of any size answers
at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spr_plugin import runs
from spr_plugin.files import AnyPath, Damaged, read_errors, read_json
from spr_plugin.lines import one_line
from spr_plugin.pairing import untrained
from spr_plugin.progress import listed
from spr_plugin.runs import SavedRun
from spr_plugin.runs.layout import LAYOUT, Folder
from spr_plugin.runs.log import BEGUN, counts_in
from spr_plugin.runs.reading import strange_errors
from spr_plugin.runs.steps import probes_of

SECONDS_BETWEEN_LOOKS = 5
SECONDS_APART = 10  # a file server's clock, and the counting of long logs
# Log → what one of its records is about, in the order in which they are filled.
LOGS = {
    "queries": "queries",
    "candidates": "answers",
    "scores": "queries",
    "pairs": "queries",
    "lengths": "pairs",
    "reference": "pairs",
}
HOST = "host training"  # between the queries and the first answer
REASONS = {"scores": "reason", "pairs": "skip"}  # log → the key of what was left out

Status = dict[str, Any]  # plain data


def status_of(run: SavedRun, now: float) -> Status:
    """What ``--json`` shows.

    Args:
        now: seconds since 1970.
    """
    owner, state, rounds = run.owner, run.state, [run, *run.rounds]
    looked = [round_of(one, number, now) for number, one in enumerate(rounds, 1)]
    return {
        "folder": str(run.folder),
        "state": state,
        "owner": owner,
        "version": run.version,
        "round": len(rounds),
        "stage": looked[-1]["stage"],
        "rounds": looked,
        "failure": run.failure,
        "next": what_next(run, state, looked[-1]),
    }


def round_of(run: SavedRun, number: int, now: float) -> Status:
    """How far one round is; ``stage`` is the last one that was begun."""
    stages = [one for name in LOGS if (one := log_of(run.folder, name, now))]
    stages += filter(None, [steps_of(run, now)])
    skips = {"queries": run.skipped} | {log: run.folder.log(log).words(key) for log, key in REASONS.items()}
    pairs = pairs_of(run, {one["stage"]: one["done"] for one in stages}, sum(skips["pairs"].values()))
    if pairs and pairs["marked"]:
        skips["pairs"]["marked"] = pairs["marked"]
    probes = probes_of(run.steps)
    last, stage = max(probes, default=None), stages[-1]["stage"] if stages else None
    if stage == "queries" and number == 1 and not (run.is_sampling or has_entry(run.folder)):
        stage = HOST
    return {
        "round": number,
        "folder": str(run.folder),
        "stage": stage,
        "stages": stages,
        "pairs": pairs and {name: pairs[name] for name in ("made", "train", "left_out")},
        "skips": {log: reasons for log, reasons in skips.items() if reasons},
        "step": plain(run.steps[-1]) if run.steps else None,
        "probe": None if last is None else plain({"step": last, **probes[last]}),
        "improved": run.folder.is_finished(),
    }


def pairs_of(run: SavedRun, done: Mapping[str, int], skipped: int) -> Status | None:
    """How many pairs were made, how many of them are ``marked`` as not to train, and what became of them;
    None before the first query was looked at.

    Args:
        done: stage → how many records it has.
        skipped: queries without a pair.
    """
    if "pairs" not in done:
        return None
    made = max(0, done["pairs"] - skipped)
    measured = "lengths" in done and {"reference", "dpo"} & done.keys()
    ids = run.folder.log("pairs").words("id").keys() if measured or run.excluded else set[str]()
    marked = len(run.excluded & ids)
    if not measured:  # or not all of them
        return {"made": made, "marked": marked, "train": None, "left_out": {}}
    # Lengths of pairs of other settings, and of pairs that were marked since, stay in the log.
    train = len(run.folder.log("lengths").words("pair").keys() & ids - run.excluded)
    return {"made": made, "marked": marked, "train": train, "left_out": untrained(made, train, marked)}


def log_of(folder: Folder, name: str, now: float) -> Status | None:
    """A log of records; None where there is none."""
    directory = folder.path / name
    counts, begun = counts_in(directory), begin_of(directory)
    lines = {file: records for file, (records, _) in counts.items()}
    if not lines and begun is None:
        return None
    was = begun["lines"] if begun else {}
    since = begun["time"] if begun and not is_copied(directory / BEGUN, begun["time"]) else None
    ranks = []
    for file, count in lines.items():
        written = (directory / file).stat().st_mtime
        new = count - was.get(file, 0)
        rate = None if since is None else rate_of(new, since, written)
        ranks.append(
            {"rank": int(file[5:-6]), "done": count, "rate": rate, "seconds_ago": max(0.0, now - written)}
        )
    done = sum(lines.values())
    if begun:
        done += begun["held"] - sum(was.values())
    total = begun["total"] if begun else done
    rate = sum(rank["rate"] for rank in ranks if rank["rate"]) or None
    damaged = sum(others for _, others in counts.values())
    return stage_status(name, LOGS[name], done, total, rate) | {"ranks": ranks, "damaged": damaged}


def steps_of(run: SavedRun, now: float) -> Status | None:
    """The steps of the DPO stage, which all ranks take together; None before the first one begins."""
    begun = begin_of(run.folder.dpo)
    if begun is None:
        return None
    last = run.steps[-1] if run.steps else {}
    done, since = last.get("step", 0), last.get("time", begun["time"])
    rate = rate_of(done - begun["held"], begun["time"], since)
    return stage_status("dpo", "steps", done, begun["total"], rate) | {"seconds_ago": max(0.0, now - since)}


def stage_status(stage: str, unit: str, done: int, total: int, rate: float | None) -> Status:
    left = max(0, total - done)
    seconds = 0.0 if not left else left / rate if rate else None
    return {"stage": stage, "unit": unit, "done": done, "total": total, "rate": rate, "seconds_left": seconds}


def rate_of(new: int, start: float, end: float) -> float | None:
    """Per second; None where nothing came yet."""
    return new / (end - start) if new > 0 and end > start else None


def is_copied(note: Path, written: float) -> bool:
    """Whether the file of a note that was written then has another time: those of the logs are as new."""
    return abs(note.stat().st_mtime - written) > SECONDS_APART


def begin_of(directory: Path) -> Mapping[str, Any] | None:
    """What a process noted as it went on here; None where there is no such note, or none to be read."""
    try:
        begin = read_json(directory / BEGUN)
        numbers = [*(begin[name] for name in ("time", "total", "held")), *begin["lines"].values()]
    except (Damaged, TypeError, KeyError, AttributeError):
        return None
    return begin if all(type(one) in (int, float) for one in numbers) else None


def plain(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record without what is not finite, which JSON cannot hold."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def what_next(run: SavedRun, state: str, last: Status) -> str:
    """What the same command would do next."""
    folder, stages = run.folder.whole, {stage["stage"]: stage for stage in last["stages"]}
    if state == "running":
        return "it is running: the same command would be refused until that ends"
    if run.layout != LAYOUT:
        return f"nothing with this version, of layout {LAYOUT}: spr-plugin {run.version} goes on with it"
    if run.is_sampling:
        done = state == "finished"
        return "nothing: all answers are there" if done else f"go on with {left_of(stages, 'candidates')}"
    if state == "finished":
        return "read the improved weights from spr/policy, for the host to save; nothing is trained"
    if is_without_pairs(last, stages):
        return "end again, since no preference pair is left: change the settings that left them out"
    mended = "once the last error is mended, " if state == "failed" else ""
    host = f"{mended}read the host's training from spr/entry"
    if not has_entry(folder):
        return "begin with the host's part, its training unless --spr_only is given, and then ask for answers"
    if last["improved"]:
        return f"{host}, the improved weights of round {last['round']}, and go on to the end"
    if "dpo" in stages:
        kept = last_checkpoint(Path(last["folder"]))
        where = f"from checkpoint-{kept}" if kept else "from its first step"
        return f"{host} and go on with the DPO stage {where} of {stages['dpo']['total']}"
    return f"{host} and go on with {left_of(stages, last['stage'])}"


def is_without_pairs(last: Status, stages: Mapping[str, Status]) -> bool:
    """Whether all queries were looked at, and no pair of theirs may train."""
    pairs = stages.get("pairs")
    if pairs is None or pairs["done"] < pairs["total"]:
        return False
    return last["pairs"]["made"] == last["skips"].get("pairs", {}).get("marked", 0)


def has_entry(folder: Folder) -> bool:
    return (folder.entry / "index.json").exists()


def left_of(stages: Mapping[str, Status], name: str) -> str:
    stage = stages.get(name)
    if stage is None or name == "queries":
        return "asking for answers"
    left = stage["total"] - stage["done"]
    if left <= 0:
        return f"what comes after {name}"
    return f"{name}: {left} of {stage['total']} {stage['unit']} are left"


def last_checkpoint(folder: Path) -> int | None:
    """The step of the last complete checkpoint of the DPO stage."""
    marks = (folder / "dpo").glob("checkpoint-*/complete.json")
    names = [mark.parent.name.removeprefix("checkpoint-") for mark in marks]
    return max((int(name) for name in names if name.isdecimal()), default=None)


# --- for people


def lines_of(status: Status) -> list[str]:
    """The status in lines."""
    lines = [f"{status['folder']}: {status['state']}" + (f", {status['owner']}" if status["owner"] else "")]
    for one in status["rounds"]:
        if len(status["rounds"]) > 1:
            lines.append(f"round {one['round']}")
        if not one["stages"]:
            lines.append("  nothing is there yet")
        for stage in one["stages"]:
            lines += stage_lines(stage, stage["stage"] == one["stage"], status["state"] == "running")
        if one["pairs"]:
            lines.append(pairs_line(one["pairs"]))
        if one["stage"] == HOST:
            lines.append("  the host trains; SPR goes on after it")
        for log, reasons in one["skips"].items():
            lines.append(f"  left out of {log}: {listed(reasons)}")
        for name, values in (("last step", one["step"]), ("last probe", one["probe"])):
            if values:
                lines.append(f"  {name}: {numbers(values)}")
    if failure := status["failure"]:
        where = f"{failure.get('stage')}, rank {failure.get('rank')}, {failure.get('time')}"
        lines.append(f"last error ({where}): {failure.get('error')}")
    lines.append(f"next: {status['next']}")
    return [one_line(line) for line in lines]


def pairs_line(pairs: Status) -> str:
    """How many were made, and why not all of them train."""
    if pairs["train"] is None:
        return f"  pairs made: {pairs['made']}"
    left = f" (left out: {listed(pairs['left_out'])})" if pairs["left_out"] else ""
    return f"  pairs made: {pairs['made']}, of which {pairs['train']} train{left}"


def stage_lines(stage: Status, current: bool, running: bool) -> list[str]:
    rate = per_second(stage["rate"])
    left = f", {duration(stage['seconds_left'])} left" if running and stage["seconds_left"] else ""
    torn = f" ({stage['damaged']} damaged lines)" if stage.get("damaged") else ""
    lines = [f"  {stage['stage']:<11}{stage['done']} of {stage['total']} {stage['unit']}{rate}{left}{torn}"]
    if current and "seconds_ago" in stage:
        lines.append(f"    last one {duration(stage['seconds_ago'])} ago")
    for rank in stage.get("ranks", ()) if current else ():
        rate, ago = per_second(rank["rate"]), duration(rank["seconds_ago"])
        lines.append(f"    rank {rank['rank']}: {rank['done']} records{rate}, last one {ago} ago")
    return lines


def numbers(values: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in values.items() if name not in ("time", "global_step")}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    )


def per_second(rate: float | None) -> str:
    return f", {rate:.3g}/s" if rate and rate < 1000 else f", {rate:.0f}/s" if rate else ""


def duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{hours} h"


def read_status(directory: AnyPath) -> Status:
    """The status of the run in ``directory`` now."""
    with strange_errors(directory), read_errors(directory):
        return status_of(runs.open(directory), time.time())


def show(directory: AnyPath, watch: bool = False, as_json: bool = False) -> None:
    """Print the status of the run in ``directory``; ``watch``: again and again until it ends or Ctrl-C.

    Raises:
        UserError: there is no run, or it cannot be read.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            status = read_status(directory)
            if watch and not as_json and sys.stdout.isatty():
                print("\033[H\033[2J", end="")
            print(json.dumps(status) if as_json else "\n".join(lines_of(status)), flush=True)
            if not watch or status["state"] != "running":
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
