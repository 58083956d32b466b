"""``spr compare A B``: two result folders of lmms-eval on the same tasks, sample by sample.

Every gain is B minus A on the same samples, with a paired bootstrap interval that draws whole pictures; where a sample is right or wrong, McNemar's
exact test goes with it. The paper's signature is one line: does the gain grow with the IoU threshold?

Reads the ``*_samples_<task>.jsonl`` that ``--log_samples`` leaves, and in the ``*_results.json`` beside them
whose samples they are: lmms-eval names a model's folder by the end of its path alone. Knows nothing about models.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from spr_plugin.boxes import finite
from spr_plugin.data.loading import read_json, read_json_lines
from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.files import write_text
from spr_plugin.outputs import refuse_unwritable

SAMPLES = re.compile(r"(?P<time>(?:(?!_samples_)\w)+)_samples_(?P<task>.+)\.jsonl")
FLIP_THRESHOLD = 0.5
SHOWN_FLIPS = 24
COLOURS = {"truth": "#1f77ff", "A": "#e5484d", "B": "#12a150"}
ALL = "all box tasks"


@dataclass(frozen=True)
class Run:
    """The samples of one result folder: task → document id → its record in lmms-eval's samples file; and the files that hold them."""

    folder: Path
    tasks: Mapping[str, Mapping[str, dict]]
    files: tuple[Path, ...]


def compare(a: str, b: str, out: str | None = None) -> dict:
    """Compare two result folders, and write ``compare.md``, ``.json`` and ``.html`` to `out` (default: B's folder).

    Returns what the JSON holds. Raises UserError where a folder has no samples of ours, or both differ in tasks or samples.
    """
    if out:
        refuse_unwritable({"--out": str(out)}, folders=True)
    runs = read_run(Path(a)), read_run(Path(b))
    found = compared(*runs)
    folder = Path(out or b)
    write_text(folder / "compare.json", json.dumps(found, indent=2) + "\n")
    write_text(folder / "compare.md", markdown(found))
    write_text(folder / "compare.html", html(found))
    return found


def read_run(folder: Path) -> Run:
    """The samples of each task of ours under `folder`, which holds one run: the newest, where it was made again in its place.

    Raises UserError for a folder without samples, one that holds several runs or those of several models, and
    records that no task of ours wrote.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = sorted((match["time"], match["task"], file) for file in folder.rglob("*.jsonl") if (match := SAMPLES.fullmatch(file.name)))
    read = {file: _records(file) for _, _, file in found}
    newest = {task: file for _, task, file in found if read[file]}
    if not newest:
        raise UserError(f"{folder}: holds no samples of spr tasks; run lmms-eval with --log_samples --output_path {folder}")
    homes = sorted({str(file.parent) for file, records in read.items() if records})
    if len(homes) > 1:
        raise UserError(f"{folder} holds {len(homes)} runs ({', '.join(homes)}): name the folder of one")
    _refuse_several_models([file.with_name(f"{time}_results.json") for time, _, file in found if read[file]])
    newest = dict(sorted(newest.items()))
    return Run(folder, {task: read[file] for task, file in newest.items()}, tuple(newest.values()))


def _records(file: Path) -> dict[str, dict]:
    """Document id → record; empty for a task that is not ours."""
    found: dict[str, dict] = {}
    for number, record in read_json_lines(file, str(file)):
        details = record.get(metrics.DETAILS) if isinstance(record, dict) else None
        if details is None and isinstance(record, dict) and not found:
            return {}
        if not isinstance(details, dict) or not isinstance(details.get("id"), (str, int)):
            raise UserError(f"{file}, line {number}: no record of a task of ours, whose {metrics.DETAILS} have an id")
        if details["id"] in found:
            raise UserError(f"{file}, line {number}: document {details['id']} stands there twice")
        found[details["id"]] = record
    return found


def _refuse_several_models(results: Iterable[Path]) -> None:
    """UserError where two of these files of lmms-eval, as far as they are there, say another model or other
    arguments of one."""
    of: dict[tuple, Path] = {}
    for file in dict.fromkeys(results):
        config = _config(file) if file.is_file() else None
        if config and (config.get("model") or config.get("model_args")):
            given = config.get("model_args") or ""
            pairs = given.items() if isinstance(given, dict) else str(given).split(",")
            of.setdefault((str(config.get("model")), *sorted(map(str, pairs))), file)
    if len(of) > 1:
        names = [f"{model} {','.join(arguments)} ({file.name})" for (model, *arguments), file in of.items()]
        raise UserError(
            f"{file.parent} holds the samples of {len(of)} models: {'; '.join(names)}; give each an "
            "--output_path of its own, and move the files of all but one away"
        )


def _config(results: Path) -> dict | None:
    """What lmms-eval says that it was called with."""
    content = read_json(results, str(results))
    config = content.get("config") if isinstance(content, dict) else None
    return config if isinstance(config, dict) else None


# --- what a record must hold


def _refuse_unsound(task: str, run: Run) -> None:
    """UserError for the first document that is not what one of our tasks makes of it, or whose figures are none."""
    records = run.tasks[task].values()
    kinds = {name for record in records for name in _kinds(record[metrics.DETAILS])}
    scores = {name for record in records for name, value in record.items() if _is_payload(name, value)}
    for record in records:
        details = record[metrics.DETAILS]
        boxes = details.get("items", ()) if "iou" in kinds else ()
        if not _whole(details, kinds):
            why = "is no record of a task of ours, with an image and items"
        elif unsound := [item["id"] for item in boxes if not _is_box_item(item)]:
            why = f"has an item {unsound[0]} without a sound iou, reason, truth or predicted box"
        elif unsound := [name for name in sorted(scores) if not _is_score(record.get(name))]:
            why = f"has no sound score and n of {unsound[0]}"
        else:
            continue
        raise UserError(f"{task}: document {details['id']} of {run.folder} {why}")


def _kinds(details: Mapping) -> set[str]:
    """Of what a task may measure beside plain scores: "iou" of boxes, "said" of captions."""
    items = details.get("items")
    boxed = isinstance(items, list) and any(isinstance(item, dict) and "iou" in item for item in items)
    return {name for name, there in (("iou", boxed), ("said", "said" in details)) if there}


def _whole(details: Mapping, kinds: Set[str]) -> bool:
    """Whether a record is what `metrics.detail`, or that of the captions, makes of a document."""
    items = details.get("items", [] if "said" in kinds else None)
    listed = isinstance(items, list) and all(isinstance(item, dict) and "id" in item for item in items)
    references = details.get("references")
    told = isinstance(details.get("said"), str) and isinstance(references, list) and references != []
    told = told and all(isinstance(reference, str) for reference in references)
    return isinstance(details.get("image"), str) and listed and (told or "said" not in kinds)


def _is_box_item(item: Mapping) -> bool:
    """Whether it is what `metrics.box_item` makes."""
    overlap, reason, predicted = item.get("iou"), item.get("reason", 0), item.get("predicted", 0)
    sound = finite([overlap]) and 0 <= overlap <= 1 and (reason is None or isinstance(reason, str))
    return sound and _is_box(item.get("truth")) and (predicted is None or _is_box(predicted))


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and finite(value)


def _is_payload(name: str, value: object) -> bool:
    """Whether a field of a record is a metric's payload, sound or not: not lmms-eval's own ``doc``, say."""
    return isinstance(value, dict) and name not in ("doc", metrics.DETAILS) and ("score" in value or "n" in value)


def _is_score(value: object) -> bool:
    """Whether it is what `metrics.payload` makes."""
    return isinstance(value, dict) and finite([value.get("score"), value.get("n")]) and value["n"] >= 0


# --- figures


def compared(a: Run, b: Run) -> dict:
    """``{"a", "b", "files": {"a", "b"}, "tasks": {task: {"rows", "signature", "flips"}}}``, plain data."""
    if set(a.tasks) != set(b.tasks):
        only = ", ".join(sorted(set(a.tasks) ^ set(b.tasks)))
        raise UserError(f"{a.folder} and {b.folder} are of different tasks; only one of them has {only}")
    pairs = {task: _paired(task, a, b) for task in a.tasks}
    boxes = [pair for task in pairs.values() for pair in task if "iou" in pair[1]]
    tasks = {task: _task(found, a.tasks[task], b.tasks[task]) for task, found in pairs.items()}
    if sum(any("iou" in pair[1] for pair in found) for found in pairs.values()) > 1:
        tasks = {ALL: _task(boxes, {}, {}), **tasks}
    files = {side: [str(file) for file in run.files] for side, run in (("a", a), ("b", b))}
    return {"a": str(a.folder), "b": str(b.folder), "files": files, "tasks": tasks}


def _paired(task: str, a: Run, b: Run) -> list[tuple[dict, dict, dict]]:
    """(document's details, A's item, B's item) of each sample."""
    first, second = a.tasks[task], b.tasks[task]
    if first.keys() != second.keys():
        only = sorted(first.keys() ^ second.keys(), key=str)
        raise UserError(f"{task}: {a.folder} and {b.folder} differ in {len(only)} documents, such as {only[0]}; evaluate both on the same ones")
    found = []
    for run in (a, b):
        _refuse_unsound(task, run)
    for id, record in first.items():
        details, other = record[metrics.DETAILS], second[id][metrics.DETAILS]
        hashes = {details.get("asked"), other.get("asked")} - {None}  # older versions wrote none
        if len(hashes) > 1 or _asked(details) != _asked(other):
            raise UserError(f"{task}: {a.folder} and {b.folder} ask other things in document {id}, or know another truth; evaluate both on the same data")
        found += [(details, x, y) for x, y in zip(details.get("items", ()), other.get("items", ()))]
    return found


def _asked(details: Mapping) -> tuple:
    """What two records of one document have in common, whatever was answered."""
    items = [(item["id"], item.get("truth"), "iou" in item) for item in details.get("items", ())]
    return details["image"], details.get("references"), items


def _task(pairs: Sequence, first: Mapping, second: Mapping) -> dict:
    if pairs and "iou" in pairs[0][1]:
        return _boxes(pairs)
    return {"rows": _scores(first, second), "signature": None, "flips": None}


def _boxes(pairs: Sequence[tuple[dict, dict, dict]]) -> dict:
    """Rows at every threshold, the signature and what flipped."""
    images = [details["image"] for details, _, _ in pairs]
    overlaps = np.array([[x["iou"], y["iou"]] for _, x, y in pairs])
    hits = {f"Acc@{t}": (overlaps >= t).astype(float) for t in metrics.THRESHOLDS}
    failures = np.array([[x["reason"] is not None, y["reason"] is not None] for _, x, y in pairs], dtype=float)
    rows = figure_rows({**hits, "mIoU": overlaps, "parse_failure": failures}, images)
    first, last = (hits[f"Acc@{t}"] for t in (metrics.THRESHOLDS[0], metrics.THRESHOLDS[-1]))
    return {"rows": rows, "signature": _signature(first, last, images), "flips": _flips(pairs)}


def figure_rows(figures: Mapping[str, np.ndarray], images: Sequence[str]) -> list[dict]:
    """figure → (n, 2) values of A and B, a row a sample."""
    ones = np.ones(len(images))
    gains = {row["figure"]: row for row in metrics.intervals({name: (v[:, 1] - v[:, 0], ones) for name, v in figures.items()}, images)}
    found = []
    for name, values in figures.items():
        row = {"figure": name, "a": float(values[:, 0].mean()), "b": float(values[:, 1].mean()), "gain": gains[name]["value"]}
        right_or_wrong = bool(np.isin(values, (0.0, 1.0)).all())
        found.append({**row, "low": gains[name]["low"], "high": gains[name]["high"], "p": mcnemar(values) if right_or_wrong else None, "n": len(values)})
    return found


def mcnemar(values: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test on (n, 2) of 0 and 1: are as many samples won as lost?"""
    lost, won = int((values[:, 0] > values[:, 1]).sum()), int((values[:, 0] < values[:, 1]).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def _signature(first: np.ndarray, last: np.ndarray, images: Sequence[str]) -> dict:
    """Does the gain grow from the lowest to the highest threshold?"""
    growth = (last[:, 1] - last[:, 0]) - (first[:, 1] - first[:, 0])
    (row,) = metrics.intervals({"growth": (growth, np.ones(len(growth)))}, images)
    verdict = "grows" if row["low"] > 0 else "shrinks" if row["high"] < 0 else "neither grows nor shrinks beyond chance"
    gains = [100 * float((side[:, 1] - side[:, 0]).mean()) for side in (first, last)]
    low, high = metrics.THRESHOLDS[0], metrics.THRESHOLDS[-1]
    line = (
        f"the gain {verdict} with the threshold: {gains[0]:+.2f} points at IoU {low}, {gains[1]:+.2f} at {high} "
        f"(difference {100 * row['value']:+.2f}, 95 % interval {100 * row['low']:+.2f} to {100 * row['high']:+.2f})"
    )
    return {"verdict": verdict, "growth": row["value"], "low": row["low"], "high": row["high"], "line": line}


def _flips(pairs: Sequence[tuple[dict, dict, dict]]) -> dict:
    """How many samples became right and wrong at IoU 0.5, and those that changed most."""
    flipped = [(d, x, y) for d, x, y in pairs if (x["iou"] >= FLIP_THRESHOLD) != (y["iou"] >= FLIP_THRESHOLD)]
    flipped.sort(key=lambda pair: -abs(pair[2]["iou"] - pair[1]["iou"]))
    shown = [
        {"id": x["id"], "image": d["image"], "picture": d.get("picture"), "truth": x["truth"], "a": x["predicted"], "b": y["predicted"],
         "iou_a": x["iou"], "iou_b": y["iou"]} for d, x, y in flipped[:SHOWN_FLIPS]
    ]  # fmt: skip
    won = sum(y["iou"] > x["iou"] for _, x, y in flipped)
    return {"threshold": FLIP_THRESHOLD, "won": won, "lost": len(flipped) - won, "shown": shown}


def _scores(first: Mapping[str, dict], second: Mapping[str, dict]) -> list[dict]:
    """Rows of a task without boxes: the mean of each document's score of each metric that has one; captions by CIDEr and ROUGE-L."""
    ids, (one, *_) = list(first), first.values()
    images = [first[id][metrics.DETAILS]["image"] for id in ids]
    if "said" in one[metrics.DETAILS]:
        from spr_plugin.eval_tasks import captions

        both = [[run[id][metrics.DETAILS] for id in ids] for run in (first, second)]
        figures = {name: np.column_stack([scorer.scores(side) for side in both]) for name, scorer in
                   (("CIDEr / 100", captions.cider), ("ROUGE-L", captions.rouge_l))}  # fmt: skip
        figures["CIDEr / 100"] = figures["CIDEr / 100"] / 100
        return figure_rows(figures, images)
    names = [name for name, value in one.items() if _is_payload(name, value) and name in second[ids[0]]]
    return _ratio_rows({name: np.array([[run[id][name][key] for run in (first, second) for key in ("score", "n")] for id in ids])
                        for name in names}, images)  # fmt: skip


def _ratio_rows(figures: Mapping[str, np.ndarray], images: Sequence[str]) -> list[dict]:
    """figure → (documents, 4): score and samples of A, score and samples of B. The samples may differ (boxes of an answer)."""
    found = []
    for name, v in figures.items():
        if (v[:, 1] == 1).all() and (v[:, 3] == 1).all():
            found += figure_rows({name: v[:, [0, 2]]}, images)
            continue
        table = np.column_stack([v[:, 0] * v[:, 1], v[:, 1], v[:, 2] * v[:, 3], v[:, 3]])
        a, na, b, nb = table.sum(axis=0)
        drawn = metrics.resampled(table, images, metrics.RESAMPLES, metrics.SEED)
        with np.errstate(invalid="ignore", divide="ignore"):
            gains = drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1]
        low, high = map(float, np.nanpercentile(gains, (2.5, 97.5))) if na and nb else (0.0, 0.0)
        a, b = (float(total / n) if n else 0.0 for total, n in ((a, na), (b, nb)))
        found.append({"figure": name, "a": a, "b": b, "gain": b - a, "low": low, "high": high, "p": None, "n": len(v)})
    return found


# --- output


def markdown(found: Mapping) -> str:
    """The comparison as Markdown, in percent."""
    lines = []
    for side in ("a", "b"):
        lines += [f"{side.upper()}: `{found[side]}`, read from", *(f"- `{file}`" for file in found["files"][side]), ""]
    for task, part in found["tasks"].items():
        lines += [f"## {task}", "", "| figure | A | B | gain | 95 % interval | McNemar p | n |", "|---|--:|--:|--:|:-:|--:|--:|"]
        for row in part["rows"]:
            a, b, gain, low, high = (100 * row[key] for key in ("a", "b", "gain", "low", "high"))
            p = "" if row["p"] is None else f"{row['p']:.2g}"
            lines.append(f"| {row['figure']} | {a:.2f} | {b:.2f} | {gain:+.2f} | {low:+.2f} … {high:+.2f} | {p} | {row['n']} |")
        lines.append("")
        if part["signature"]:
            lines += [f"Signature: {part['signature']['line']}.", ""]
        if part["flips"]:
            lines += [f"At IoU {part['flips']['threshold']}, {part['flips']['won']} became right and {part['flips']['lost']} wrong.", ""]
    return "\n".join(lines)


def html(found: Mapping) -> str:
    """The comparison as one self-contained page: tables, the gain at every threshold as a plot, flipped samples with their boxes."""
    from spr_plugin.report.page import template

    plots = {task: plot([row for row in part["rows"] if row["figure"] in metrics.ACCURACIES]) for task, part in found["tasks"].items() if part["signature"]}
    pictures = {task: [_picture(flip) for flip in part["flips"]["shown"]] for task, part in found["tasks"].items() if part["flips"] and task != ALL}
    return template("compare.html").render(found=found, plots=plots, pictures=pictures, colours=COLOURS)


def _picture(flip: Mapping) -> str | None:
    """Truth, A's and B's box on the picture as a data URI; None where it has no path or is gone."""
    from spr_plugin.report.page import data_uri

    try:
        image = open_image(flip["picture"], flip["id"]) if flip["picture"] else None
    except UserError:
        image = None
    boxes = [(COLOURS[name], flip[key], 2) for name, key in (("truth", "truth"), ("A", "a"), ("B", "b")) if flip[key]]
    return data_uri(image, boxes) if image else None


def plot(rows: Sequence[Mapping]) -> str:
    """The gain of every row (five at most) with its interval, in points, as SVG."""
    top = max(0.1, max(abs(100 * row[key]) for row in rows for key in ("low", "high"))) * 1.1

    def y(value: float) -> float:
        return 110 - 100 * (100 * value) / top

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 240" width="420" height="240" font-family="sans-serif" font-size="11">',
             '<line x1="50" y1="110" x2="410" y2="110" stroke="#999"/>']  # fmt: skip
    for value in (top / 1.1, -top / 1.1):
        parts.append(f'<text x="45" y="{y(value / 100) + 4:.1f}" text-anchor="end">{value:+.1f}</text>')
    for place, row in enumerate(rows):
        x = 80 + 75 * place
        parts.append(f'<line x1="{x}" y1="{y(row["low"]):.1f}" x2="{x}" y2="{y(row["high"]):.1f}" stroke="{COLOURS["B"]}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x}" cy="{y(row["gain"]):.1f}" r="4" fill="{COLOURS["B"]}"><title>{100 * row["gain"]:+.2f}</title></circle>')
        parts.append(f'<text x="{x}" y="234" text-anchor="middle">{row["figure"]}</text>')
    return "".join(parts) + "</svg>"
