"""What is measured and how it is summed up: the one place of thresholds, object sizes, means and intervals.

Every figure is a ratio of two sums over samples, ``Σ value / Σ weight``, never a mean of means. So one
document's part of a metric is a *payload* ``{id, image, score, n}``: `n` samples whose mean is `score`. The
metric ``details`` carries all of a document at once, and its aggregate is every figure with its 95 %
interval, which the terminal's table has no room for (:class:`Details`).

Knows nothing about answers, formats or files.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from spr_plugin.boxes import SIZES, pair_iou
from spr_plugin.ids import digest

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
ACCURACIES = tuple(f"Acc@{threshold}" for threshold in THRESHOLDS)
FERRET_ACCURACIES = tuple(f"ferret_{name}" for name in ACCURACIES)  # by Ferret's own rule (:mod:`ferret`)
BOX_METRICS = {
    **dict.fromkeys((*ACCURACIES, "mIoU"), True),
    "parse_failure": False,
    "boxes": None,
}  # → whether higher is better
DETAILS = "details"
# Of a document's fields: where its pictures lie, and what the model makes of it.
NOT_ASKED = {"image", "image_id", "shown", "box_format"}
RESAMPLES = 10_000
SEED = 0

# Name → (values, weights), a row a sample; the figure is Σ values / Σ weights.
Columns = dict[str, tuple[np.ndarray, np.ndarray]]


class Details(tuple):
    """Rows ``{"figure", "value", "low", "high", "n", "images"}``: every figure with its interval and how many
    samples and pictures it rests on.

    A tuple, since lmms-eval's table then prints the two words below, and its JSON all of it. `payloads` are
    what it was made of, so that a group can sum up its tasks by sample.
    """

    payloads: Sequence[Mapping] = ()

    def __str__(self) -> str:
        return "in JSON"

    __repr__ = __str__


# --- boxes


def box_item(
    id: str,
    truths: Sequence[Sequence[float]],
    predicted: Sequence[float] | None,
    reason: str | None,
    count: int,
    ceiling: float = 1.0,
) -> dict:
    """One judged box as plain data; the IoU is the best with any of `truths`.

    Args:
        truths, predicted: xyxy in pixels of the picture; no box predicted is IoU 0.
        reason: why none could be read.
        count: boxes in the answer.
        ceiling: IoU that the truth itself keeps when the model's box text has rounded it.
    """
    overlaps = [pair_iou(predicted, truth) if predicted is not None else 0.0 for truth in truths]
    x1, y1, x2, y2 = truths[overlaps.index(max(overlaps))]
    return {
        "id": id,
        "iou": max(overlaps),
        "area": (x2 - x1) * (y2 - y1),
        "ceiling": ceiling,
        "boxes": count,
        "reason": reason,
        "predicted": None if predicted is None else [round(value, 2) for value in predicted],
        "truth": [round(value, 2) for value in (x1, y1, x2, y2)],
    }


def box_payloads(doc: Mapping, items: Sequence[dict]) -> dict[str, dict]:
    """The judged boxes of one document → the payload of each of `BOX_METRICS`, and of the details."""
    overlaps = [item["iou"] for item in items]
    values_of = {
        f"Acc@{threshold}": [float(overlap >= threshold) for overlap in overlaps] for threshold in THRESHOLDS
    }
    values_of["mIoU"] = overlaps
    values_of["parse_failure"] = [float(item["reason"] is not None) for item in items]
    values_of["boxes"] = [float(item["boxes"]) for item in items]
    return {name: payload(doc, values) for name, values in values_of.items()} | {DETAILS: detail(doc, items)}


def box_columns(items: Sequence[dict]) -> Columns:
    """Judged boxes → every figure of theirs: accuracies and mean IoU (also by size), the grid's ceilings,
    failures by reason.
    """
    overlap, ceiling, area = (np.array([item[key] for item in items]) for key in ("iou", "ceiling", "area"))
    ones = np.ones(len(items))
    reasons = [item["reason"] for item in items]
    columns = {f"Acc@{threshold}": (overlap >= threshold, ones) for threshold in THRESHOLDS}
    columns["mIoU"] = (overlap, ones)
    columns |= {f"ceiling@{threshold}": (ceiling >= threshold, ones) for threshold in THRESHOLDS}
    for size, (low, high) in SIZES.items():
        inside = ((area >= low) & (area < high)).astype(float)
        columns |= {f"{name} {size}": (columns[name][0] * inside, inside) for name in (*ACCURACIES, "mIoU")}
    columns["parse_failure"] = (np.array([reason is not None for reason in reasons]), ones)
    for known in sorted({reason for reason in reasons if reason}):
        columns[f"parse_failure {known}"] = (np.array([reason == known for reason in reasons]), ones)
    columns["boxes"] = (np.array([item["boxes"] for item in items]), ones)
    return columns


# --- payloads


def payload(doc: Mapping, values: Sequence[float]) -> dict:
    """One document's samples of one metric."""
    return {
        "id": doc["id"],
        "image": doc["image_id"],
        "score": sum(values) / len(values) if values else 0.0,
        "n": len(values),
    }


def detail(doc: Mapping, items: Sequence[dict]) -> dict:
    """All of one document's samples. The picture's path goes along where it has one, for whoever draws the
    boxes, and a hash of what is asked and true (`asked`), for whoever compares two runs.
    """
    picture = doc.get("image")
    asked = digest({name: value for name, value in doc.items() if name not in NOT_ASKED})
    return {
        "id": doc["id"],
        "image": doc["image_id"],
        "picture": picture if isinstance(picture, str) else None,
        "asked": asked,
        "items": list(items),
    }


def mean(payloads: Iterable[Mapping]) -> float:
    """Mean over samples; 0 where there is none."""
    pairs = [(record["score"] * record["n"], record["n"]) for record in payloads]
    count = sum(n for _, n in pairs)
    return sum(total for total, _ in pairs) / count if count else 0.0


def ratio_columns(items: Sequence[Mapping]) -> Columns:
    """Items ``{"id", "figures": {name: (sum of values, sum of weights)}}`` → columns; what an item does not
    have weighs nothing there.
    """
    names = dict.fromkeys(name for item in items for name in item["figures"])
    table = {
        name: np.array([item["figures"].get(name, (0.0, 0.0)) for item in items], dtype=float)
        for name in names
    }
    return {name: (pairs[:, 0], pairs[:, 1]) for name, pairs in table.items()}


def details(payloads: Sequence[Mapping], columns) -> Details:
    """Aggregate of the ``details`` payloads; `columns` makes columns of their items."""
    items = list(chain.from_iterable(record["items"] for record in payloads))
    images = [record["image"] for record in payloads for _ in record["items"]]
    made = Details(intervals(columns(items), images) if items else ())
    made.payloads = payloads
    return made


def box_details(payloads: Sequence[Mapping]) -> Details:
    """Details of a task whose samples are boxes."""
    return details(payloads, box_columns)


def ratio_details(payloads: Sequence[Mapping]) -> Details:
    """Details of any other task, its items as in :func:`ratio_columns`."""
    return details(payloads, ratio_columns)


def pooled_box_details(parts: Sequence[Details], sizes: Sequence[int], weight_by_size: bool) -> Details:
    """lmms-eval's group aggregation of details: the tasks' samples in one, whatever the tasks' sizes."""
    return box_details(list(chain.from_iterable(part.payloads for part in parts)))


# --- intervals


def intervals(
    columns: Columns, clusters: Sequence, resamples: int = RESAMPLES, seed: int = SEED
) -> list[dict]:
    """A row a figure (:class:`Details`) with its 95 % percentile bootstrap interval, whole clusters drawn:
    expressions about one picture are not independent.

    A figure without weight (no small object, say) is left out.
    """
    values, weights = (
        np.column_stack([np.asarray(pair[side], dtype=float) for pair in columns.values()]) for side in (0, 1)
    )
    totals, counts = values.sum(axis=0), weights.sum(axis=0)
    drawn = resampled(np.hstack([values, weights]), clusters, resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = drawn[:, : len(columns)] / drawn[:, len(columns) :]
    rows, images = [], len(set(clusters))
    for index, name in enumerate(columns):
        if counts[index]:
            low, high = map(float, np.nanpercentile(ratios[:, index], (2.5, 97.5)))
            value, n = float(totals[index] / counts[index]), int(counts[index])
            rows.append({"figure": name, "value": value, "low": low, "high": high, "n": n, "images": images})
    return rows


def resampled(table: np.ndarray, clusters: Sequence, resamples: int, seed: int) -> np.ndarray:
    """Column sums of `table` (n, k) in each of `resamples` draws of as many clusters as there are, with
    replacement: (resamples, k).
    """
    _, indices = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    count = int(indices.max()) + 1
    sums = np.zeros((count, table.shape[1]))
    np.add.at(sums, indices, table)
    rng, totals = np.random.default_rng(seed), []
    rows = max(1, 4_000_000 // count)  # draws at once: some 50 MB
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = (
            rng.integers(0, count, (size, count), dtype=np.uint32)
            + (np.arange(size, dtype=np.uint32) * count)[:, None]
        )
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        totals.append(times.astype(float) @ sums)
    return np.vstack(totals)
