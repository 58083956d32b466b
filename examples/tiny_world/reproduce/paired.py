"""What units found, side by side: rows of gains on the same samples.

Every gain is on the same samples. Its interval draws pictures and, where a row has several, seeds, both
with replacement and the same ones for both sides.

A *row* is ``{"a", "b", "gain", "low", "high", "p", "n", "seeds", "by_seed", "apart"}``: value before and
after, their difference with its interval and two-sided p value (None where only the seeds' own intervals are
known), the number of samples and of seeds, the value after of each seed, and whether these disagree so much
that their mean says nothing; of a figure of which less is better ``failure`` too. What a row is called
("gains", "loses", …) follows from its interval alone: :func:`sign`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import plan
import targets
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.files import read_json

BASE, GROWTH, BOXES, TRUE_YES = "base", "growth", "boxes", "true_yes"
UNTOUCHED, OF_TOUCHED = "untouched", "Acc@0.5 of the touched"  # by the box of its name
OF_THIRDS = ("Acc@0.5", "Acc@0.9")  # of the smallest and of the largest third of the objects too
FAILURES = ("parse_failure", "false_yes", "untouched")  # figures of which less is better
APART = 0.2  # seeds whose shares lie further apart have no mean worth saying
COVERAGE = 95  # percent, of every interval

Units = Mapping[int, dict]  # seed → what results/ holds
Row = Mapping[str, object]


def load(folder: Path) -> dict[str, dict[int, dict]]:
    """Variant → seed → unit; a base has one, whatever its seed."""
    found: dict = {}
    for file in sorted(folder.glob("*.json")):
        unit = read_json(file)
        found.setdefault(unit["variant"], {})[unit.get("seed", 0)] = unit
    return found


# --- what a row may be called


def apart(by_seed: Sequence[float]) -> bool:
    """Whether seeds disagree so much that the mean of their shares says nothing; each one is shown."""
    return bool(max(by_seed) - min(by_seed) > APART)


def sign(row: Row | None, margin: float = 0.0) -> int | None:
    """1 where the whole interval of the gain lies above `margin`, -1 where it lies below, 0 where it holds
    it, its ends included. None where nothing can be said: not measured, or the seeds are apart.
    """
    if row is None or row["apart"]:
        return None
    return int(row["low"] > margin) - int(row["high"] < margin)


# --- gains


def samples(unit: Mapping, task: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """(picture of each sample, figure → (n, 2) of value and weight) of one task."""
    one = unit["samples"][f"spr_tiny_world_{task}"]
    asked = sorted(one["pictures"].items())
    pictures = [picture for picture, rows in asked for _ in rows]
    rows = np.array([row for _, rows in asked for row in rows], dtype=float)
    if one["figures"] != ["IoU"]:
        found = {name: rows[:, 2 * place : 2 * place + 2] for place, name in enumerate(one["figures"])}
        if "precision" in found:  # a share of the boxes that are written
            found[BOXES] = np.column_stack([found["precision"][:, 1], np.ones(len(rows))])
        if "false_yes" in found and found["false_yes"][:, 1].any():  # which answers an accuracy moves by
            right, asked = found["accuracy"][:, 0], 1 - found["false_yes"][:, 1]
            found[TRUE_YES] = np.column_stack([right * asked, asked])
        return pictures, found
    values = {f"Acc@{t}": rows >= t for t in metrics.THRESHOLDS} | {"mIoU": rows}
    values[GROWTH] = values[metrics.ACCURACIES[-1]].astype(float) - values[metrics.ACCURACIES[0]]
    found = {name: np.column_stack([value, np.ones(len(rows))]) for name, value in values.items()}
    if task == "phrases":  # whether names are said no more, or boxes lie worse
        found[UNTOUCHED] = np.column_stack([rows == 0, np.ones(len(rows))])
        found[OF_TOUCHED] = np.column_stack([found[metrics.ACCURACIES[0]][:, 0], rows > 0])
    return pictures, found


def gains(first: Sequence[dict], second: Sequence[dict], task: str) -> dict[str, dict]:
    """Figure → row of the units `second` against `first`, seed by seed (or one base for all seeds).

    UserError where two units were not asked about the same pictures.
    """
    first = list(first) * (len(second) if len(first) == 1 else 1)
    loaded = [samples(unit, task) for unit in (*first, *second)]
    pictures = loaded[0][0]
    if len(first) != len(second) or any(found[0] != pictures for found in loaded):
        raise UserError(
            f"reproduce: {first[0]['variant']} and {second[0]['variant']} were not asked about the same"
            f" pictures ({task}); run one of them again"
        )
    if (areas := areas_of(first[0], task)) is not None:
        least, most = thirds(areas)
        for _, own in loaded:
            own |= {f"{name}{targets.SMALLEST}": own[name] * (areas <= least)[:, None] for name in OF_THIRDS}
            own |= {f"{name}{targets.LARGEST}": own[name] * (areas > most)[:, None] for name in OF_THIRDS}
    names = list(loaded[0][1])
    table = np.stack([[found[1][name] for name in names] for found in loaded])  # unit, figure, sample, 2
    sides = table.reshape(2, len(second), len(names), len(pictures), 2)
    each = sides.sum(axis=3)  # side, seed, figure, 2
    totals = each.sum(axis=1)  # side, figure, 2
    drawn = _draws(sides, pictures)
    asked = [k for k in range(len(names)) if totals[:, k, 1].all()]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios, values = (
            drawn[:, :, asked, 0] / drawn[:, :, asked, 1],
            totals[:, asked, 0] / totals[:, asked, 1],
        )
        by_seed = each[1, :, :, 0] / each[1, :, :, 1]
    differences = ratios[:, 1] - ratios[:, 0]
    low, high = np.nanpercentile(differences, (50 - COVERAGE / 2, 50 + COVERAGE / 2), axis=0)
    p = p_values(differences)
    return {
        names[k]: {
            "a": a,
            "b": b,
            "gain": b - a,
            "low": low[place],
            "high": high[place],
            "p": p[place],
            "n": len(pictures),
            "seeds": len(second),
            "by_seed": by_seed[:, k].tolist(),
            "apart": names[k] != BOXES and apart(by_seed[:, k]),
            **({"failure": True} if names[k].startswith(FAILURES) else {}),
        }
        for place, (k, a, b) in enumerate(zip(asked, *values))
    }


def areas_of(unit: Mapping, task: str) -> np.ndarray | None:
    """Of each sample's true box in px², in the order of :func:`samples`; None where the unit keeps none."""
    kept = unit["samples"][f"spr_tiny_world_{task}"].get("areas")
    return kept and np.array([area for _, own in sorted(kept.items()) for area in own])


def thirds(areas: Sequence[float] | np.ndarray) -> np.ndarray:
    """The largest area of the smallest third of the samples asked, and of the second; equal ones are in the
    same third.
    """
    return np.quantile(areas, (1 / 3, 2 / 3))


def p_values(differences: np.ndarray) -> np.ndarray:
    """Two-sided, of each column of resampled differences (resamples, k): twice the smaller of the shares on
    either side of zero, at least one resample's and at most 1.
    """
    known = (~np.isnan(differences)).sum(axis=0)
    sides = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.clip(2 * sides / known, 1 / len(differences), 1.0)


def _draws(sides: np.ndarray, pictures: Sequence[str]) -> np.ndarray:
    """Sums over drawn pictures and seeds: (side, seed, figure, sample, 2) → (resamples, side, figure, 2)."""
    count, seeds = len(pictures), sides.shape[1]
    sums = metrics.resampled(
        np.moveaxis(sides, 3, 0).reshape(count, -1), pictures, metrics.RESAMPLES, metrics.SEED
    )
    sums = sums.reshape(-1, *sides.shape[:3], 2)
    if seeds == 1:
        return sums[:, :, 0]
    picked = np.random.default_rng(metrics.SEED).integers(0, seeds, (len(sums), seeds))
    times = (picked[:, :, None] == np.arange(seeds)).sum(axis=1)  # how often each seed was drawn
    return np.einsum("rs,rasfv->rafv", times, sums)


def against(found: Mapping[str, Units], a: str, b: str, task: str) -> dict[str, dict]:
    """Gains of variant `b` over variant or base `a` on the seeds that both have; {} where there are none, or
    where they were not asked.
    """
    if a not in found or b not in found:
        return {}
    seeds = sorted(found[b]) if a.startswith(BASE) else sorted(found[a].keys() & found[b].keys())
    sides = [list(found[a].values()) if a.startswith(BASE) else [found[a][seed] for seed in seeds]]
    sides.append([found[b][seed] for seed in seeds])
    asked = all(f"spr_tiny_world_{task}" in unit["samples"] for side in sides for unit in side)
    return gains(*sides, task) if seeds and asked else {}


def base_of(found: Mapping[str, Units], name: str) -> str:
    """The base that a variant is compared with: the embedded one, or what its own SFT made of it."""
    return f"{BASE} of {name}" if f"{BASE} of {name}" in found else BASE


def missing(found: Mapping[str, Units], variants: Mapping[str, plan.Variant]) -> dict[str, list[int]]:
    """Variant → its seeds that are not there."""
    gaps = {
        name: [seed for seed in variant.seeds if seed not in found.get(name, {})]
        for name, variant in variants.items()
    }
    return {name: seeds for name, seeds in gaps.items() if seeds}
