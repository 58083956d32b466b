"""``spr compare A B``: two result folders of lmms-eval on the same tasks, sample by sample.

Every gain is B minus A on the same samples, with a paired bootstrap interval that draws whole pictures; where
a sample is right or wrong, McNemar's
exact test goes with it. The paper's signature is one line: does the gain grow with the IoU threshold?

Reads the ``*_samples_<task>.jsonl`` that ``--log_samples`` leaves, and in the ``*_results.json`` beside them
whose samples they are: lmms-eval names a model's folder by the end of its path alone. Knows nothing about
models.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.eval_tasks.saved_results import Results, is_payload, refuse_unsound, spoken

FLIP_THRESHOLD = 0.5
SHOWN_FLIPS = 24
ALL = "all box tasks"  # the row over every task whose items are boxes


def compared(a: Results, b: Results) -> dict:
    """``{"a", "b", "files", "made": {"a", "b"} each, "tasks": {task: {"rows", "signature", "flips"}}}``,
    plain data.
    """
    if set(a.tasks) != set(b.tasks):
        only = ", ".join(sorted(set(a.tasks) ^ set(b.tasks)))
        raise UserError(f"{a.folder} and {b.folder} are of different tasks; only one of them has {only}")
    pairs = {task: _paired(task, a, b) for task in a.tasks}
    boxes = [pair for task in pairs.values() for pair in task if "iou" in pair[1]]
    tasks = {task: _task(several, a.tasks[task], b.tasks[task]) for task, several in pairs.items()}
    if sum(any("iou" in pair[1] for pair in several) for several in pairs.values()) > 1:
        tasks = {ALL: _task(boxes, {}, {}), **tasks}
    files = {side: [str(file) for file in run.files] for side, run in (("a", a), ("b", b))}
    made = {"a": dict(a.made), "b": dict(b.made)}
    return {"a": str(a.folder), "b": str(b.folder), "files": files, "made": made, "tasks": tasks}


def _paired(task: str, a: Results, b: Results) -> list[tuple[dict, dict, dict]]:
    """(document's details with what was asked and said, A's item, B's item) of each sample."""
    first, second = a.tasks[task], b.tasks[task]
    if first.keys() != second.keys():
        only = sorted(first.keys() ^ second.keys(), key=str)
        raise UserError(
            f"{task}: {a.folder} and {b.folder} differ in {len(only)} documents, such as {only[0]}; evaluate"
            " both on the same ones"
        )
    pairs = []
    for run in (a, b):
        refuse_unsound(task, run)
    for id, record in first.items():
        details, other = record[metrics.DETAILS], second[id][metrics.DETAILS]
        hashes = {details.get("asked"), other.get("asked")} - {None}  # older versions wrote none
        if len(hashes) > 1 or _asked(details) != _asked(other):
            raise UserError(
                f"{task}: {a.folder} and {b.folder} ask other things in document {id}, or know another truth;"
                " evaluate both on the same data"
            )
        (asked, answer_a), (_, answer_b) = spoken(record), spoken(second[id])
        document = {**details, "question": asked, "answer_a": answer_a, "answer_b": answer_b}
        pairs += [(document, x, y) for x, y in zip(details.get("items", ()), other.get("items", ()))]
    return pairs


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
    failures = np.array(
        [[x["reason"] is not None, y["reason"] is not None] for _, x, y in pairs], dtype=float
    )
    rows = figure_rows({**hits, "mIoU": overlaps, "parse_failure": failures}, images)
    first, last = (hits[f"Acc@{t}"] for t in (metrics.THRESHOLDS[0], metrics.THRESHOLDS[-1]))
    return {"rows": rows, "signature": _signature(first, last, images), "flips": _flips(pairs)}


def figure_rows(figures: Mapping[str, np.ndarray], images: Sequence[str]) -> list[dict]:
    """figure → (n, 2) values of A and B, a row a sample."""
    ones = np.ones(len(images))
    gains = {
        row["figure"]: row
        for row in metrics.intervals({name: (v[:, 1] - v[:, 0], ones) for name, v in figures.items()}, images)
    }
    rows = []
    for name, values in figures.items():
        row = {
            "figure": name,
            "a": float(values[:, 0].mean()),
            "b": float(values[:, 1].mean()),
            "gain": gains[name]["value"],
        }
        right_or_wrong = bool(np.isin(values, (0.0, 1.0)).all())
        rows.append(
            {
                **row,
                "low": gains[name]["low"],
                "high": gains[name]["high"],
                "p": mcnemar(values) if right_or_wrong else None,
                "n": len(values),
            }
        )
    return rows


def mcnemar(values: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test on (n, 2) of 0 and 1: are as many samples won as lost?"""
    lost, won = int((values[:, 0] > values[:, 1]).sum()), int((values[:, 0] < values[:, 1]).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def _signature(first: np.ndarray, last: np.ndarray, images: Sequence[str]) -> dict:
    """Does the gain grow from the lowest to the highest threshold?"""
    growth = (last[:, 1] - last[:, 0]) - (first[:, 1] - first[:, 0])
    (row,) = metrics.intervals({"growth": (growth, np.ones(len(growth)))}, images)
    verdict = (
        "grows"
        if row["low"] > 0
        else "shrinks"
        if row["high"] < 0
        else "neither grows nor shrinks beyond chance"
    )
    gains = [100 * float((side[:, 1] - side[:, 0]).mean()) for side in (first, last)]
    low, high = metrics.THRESHOLDS[0], metrics.THRESHOLDS[-1]
    line = (
        f"the gain {verdict} with the threshold: {gains[0]:+.2f} points at IoU {low}, {gains[1]:+.2f} at"
        f" {high} (difference {100 * row['value']:+.2f}, 95 % interval {100 * row['low']:+.2f} to"
        f" {100 * row['high']:+.2f})"
    )
    return {"verdict": verdict, "growth": row["value"], "low": row["low"], "high": row["high"], "line": line}


def _flips(pairs: Sequence[tuple[dict, dict, dict]]) -> dict:
    """How many samples became right and wrong at IoU 0.5, and those that changed most."""
    flipped = [(d, x, y) for d, x, y in pairs if (x["iou"] >= FLIP_THRESHOLD) != (y["iou"] >= FLIP_THRESHOLD)]
    flipped.sort(key=lambda pair: -abs(pair[2]["iou"] - pair[1]["iou"]))
    shown = [
        {
            "id": x["id"],
            "image": d["image"],
            "picture": d.get("picture"),
            "phrase": x.get("phrase"),
            **{name: d[name] for name in ("question", "answer_a", "answer_b")},
            "truth": x["truth"],
            "a": x["predicted"],
            "b": y["predicted"],
            "iou_a": x["iou"],
            "iou_b": y["iou"],
        }
        for d, x, y in flipped[:SHOWN_FLIPS]
    ]
    won = sum(y["iou"] > x["iou"] for _, x, y in flipped)
    return {"threshold": FLIP_THRESHOLD, "won": won, "lost": len(flipped) - won, "shown": shown}


def _scores(first: Mapping[str, dict], second: Mapping[str, dict]) -> list[dict]:
    """Rows of a task without boxes: the mean of each document's score of each metric that has one; captions
    by CIDEr and ROUGE-L.
    """
    ids, (one, *_) = list(first), first.values()
    images = [first[id][metrics.DETAILS]["image"] for id in ids]
    if "said" in one[metrics.DETAILS]:
        from spr_plugin.eval_tasks import captions

        both = [[run[id][metrics.DETAILS] for id in ids] for run in (first, second)]
        figures = {
            name: np.column_stack([scorer.scores(side) for side in both])
            for name, scorer in (("CIDEr / 100", captions.cider), ("ROUGE-L", captions.rouge_l))
        }
        figures["CIDEr / 100"] = figures["CIDEr / 100"] / 100
        return figure_rows(figures, images)
    names = [name for name, value in one.items() if is_payload(name, value) and name in second[ids[0]]]
    return _ratio_rows(
        {
            name: np.array(
                [[run[id][name][key] for run in (first, second) for key in ("score", "n")] for id in ids]
            )
            for name in names
        },
        images,
    )


def _ratio_rows(figures: Mapping[str, np.ndarray], images: Sequence[str]) -> list[dict]:
    """figure → (documents, 4): score and samples of A, score and samples of B. The samples may differ (boxes
    of an answer).
    """
    rows = []
    for name, v in figures.items():
        if (v[:, 1] == 1).all() and (v[:, 3] == 1).all():
            rows += figure_rows({name: v[:, [0, 2]]}, images)
            continue
        table = np.column_stack([v[:, 0] * v[:, 1], v[:, 1], v[:, 2] * v[:, 3], v[:, 3]])
        a, na, b, nb = table.sum(axis=0)
        drawn = metrics.resampled(table, images, metrics.RESAMPLES, metrics.SEED)
        with np.errstate(invalid="ignore", divide="ignore"):
            gains = drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1]
        low, high = map(float, np.nanpercentile(gains, (2.5, 97.5))) if na and nb else (0.0, 0.0)
        a, b = (float(total / n) if n else 0.0 for total, n in ((a, na), (b, nb)))
        rows.append(
            {"figure": name, "a": a, "b": b, "gain": b - a, "low": low, "high": high, "p": None, "n": len(v)}
        )
    return rows
