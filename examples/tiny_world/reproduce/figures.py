"""What was found → one table of plain data, docs/reproduction.json: every figure that the docs may say.

Every gain is on the same samples. Its interval draws pictures and, where a row has several, seeds, both
with replacement and the same ones for both sides. A row whose seeds are not all there says which are missing.

A *row* is ``{"a", "b", "gain", "low", "high", "p", "n", "seeds", "by_seed", "apart"}``: value before and
after, their difference with its interval and two-sided p value (None where only the seeds' own intervals are
known), the number of samples and of seeds, the value after of each seed, and whether these disagree so much
that their mean says nothing. What a row is called ("gains", "loses", …) follows from its interval alone:
:func:`sign`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import plan
import targets
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.files import read_json

BASE, GROWTH, BOXES = "base", "growth", "boxes"
ONE_CANDIDATE = "pairs of one candidate"  # whose answer, repaired, is chosen over itself
WHY = "why"  # results/why/: what analysis.py says of a unit
TASKS = ("rec", "phrases", "description", "presence", "color")
# Whose pairs are looked into.
STAGES = (plan.MAIN, "lambda 0", "lambda 1", "no refinement", "no refinement, filtered", "ceiling", "random pairs")  # noqa: E501  # fmt: skip
EVIDENCE = ("scores", "pairs", "log_probs")  # of analysis.py
OF_SMALLEST = ("Acc@0.5", "Acc@0.9")  # of the smallest third of the objects too
APART = 0.2  # seeds whose shares lie further apart have no mean worth saying
COVERAGE = 95  # percent, of every interval
DIGITS = 6  # that are kept: the last ones depend on the processor

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
        return pictures, found
    values = {f"Acc@{t}": rows >= t for t in metrics.THRESHOLDS} | {"mIoU": rows}
    values[GROWTH] = values[metrics.ACCURACIES[-1]].astype(float) - values[metrics.ACCURACIES[0]]
    return pictures, {name: np.column_stack([value, np.ones(len(rows))]) for name, value in values.items()}


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
        small = areas <= thirds(areas)[0]
        for _, own in loaded:
            own |= {f"{name}{targets.SMALLEST}": own[name] * small[:, None] for name in OF_SMALLEST}
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


# --- all of it


def findings(results: Path) -> dict:
    """All that the docs may say of a folder of results, as plain data."""
    found, why = load(results), load(results / WHY).get(plan.MAIN, {})
    main = {task: against(found, BASE, plan.MAIN, task) for task in TASKS}
    over_base, over_main = compared(found, plan.PLANS["full"]), compared(found, plan.PLANS["full"], plan.MAIN)
    facts = {
        **{f"gain_at_{t}": main["rec"][f"Acc@{t}"]["gain"] for t in metrics.THRESHOLDS if main["rec"]},
        "paper": plan.PAPER,
        "asked": plan.ASKED,
        "resamples": metrics.RESAMPLES,
        "coverage": COVERAGE,
        "apart": APART,
        "seeds": sorted(found.get(plan.MAIN, {})),
        "missing": missing(found, plan.VARIANTS),
        "main": main,
        "claims": claims(main, over_base, over_main),
        "variants": rec_of(over_base),
        "others": {
            name: {task: rows for task, rows in tasks.items() if task != "rec"}
            for name, tasks in over_base.items()
            if len(tasks) > 1
        },
        "against_main": over_main,
        "ran": {name: sorted(units) for name, units in found.items()},
        "pairs": {
            name: counts
            for name, units in found.items()
            if None not in (counts := [pairs_of(unit) for _, unit in sorted(units.items())])
        },
        "stages": {name: stage(found[name][min(found[name])]) for name in STAGES if name in found},
        "bare_names": targets.bare_names(found.get(plan.MAIN, {})),
        "moves": moves(found),
        "grpo": spent(found),
        "why": {
            "seeds": sorted(why),
            "parts": parts(why),
            **{kind: by_figure(why, kind) for kind in EVIDENCE},
        },
        "validation": tried(results, plan.PLANS["tune"]),
        "demo": tried(results, plan.PLANS["demo"]),
        "method": method(results, plan.PLANS["method"]),
    }
    facts = rounded({**facts, "state": state(facts)})
    return {**facts, "targets": rounded(targets.judged(facts))}  # of what the docs print


def compared(found: Mapping[str, Units], chosen: plan.Plan, other: str | None = None) -> dict[str, dict]:
    """Variant → task → figure → row, against `other`, or without it against the variant's own base. With
    `other` those alone that have the same base.
    """
    table = {}
    for name in chosen.variants:
        if name == other or (other and base_of(found, name) != BASE):
            continue
        tasks = {task: against(found, other or base_of(found, name), name, task) for task in TASKS}
        table[name] = {task: rows for task, rows in tasks.items() if rows or task == "rec"}
    return table


def tried(results: Path, chosen: plan.Plan) -> dict:
    """The referring expressions of a plan's variants on validation scenes."""
    found = load(results / chosen.folder)
    return {
        "variants": rec_of(compared(found, chosen)),
        "against": rec_of(compared(found, chosen, chosen.lender)),
        "lender": chosen.lender,
        "ran": {name: sorted(units) for name, units in found.items()},
    }


def method(results: Path, chosen: plan.Plan) -> dict[str, dict]:
    """Variant that ran → its pairs, and what it reaches of the targets of one round."""
    found = load(results / chosen.folder)
    over_base, rows = compared(found, chosen), {}
    for name in chosen.variants.keys() & found.keys():
        facts = {"main": over_base[name], "bare_names": targets.bare_names(found[name])}
        reached = {key: target for key, target in targets.judged(facts).items() if target["met"] is not None}
        rows[name] = {"pairs": pairs_of(next(iter(found[name].values()))), "targets": reached}
    return {name: rows[name] for name in chosen.variants if name in rows}


def rec_of(table: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The referring expressions of :func:`compared`."""
    return {name: tasks["rec"] for name, tasks in table.items()}


def pairs_of(unit: Mapping) -> int | None:
    """How many preference pairs a unit's first round made."""
    return unit.get("stage", {}).get("counts", {}).get("preference pairs")


def stage(unit: Mapping) -> dict:
    """What DPO was given: pairs, those of one candidate (where they were counted), correlations with
    S_loc, and group of answers → term → mean (as text).
    """
    held = unit.get("stage", {})
    return {
        **{name: held[name] for name in held.keys() & {ONE_CANDIDATE}},
        "pairs": pairs_of(unit),
        "correlation": held.get("correlation with S_loc", {}),
        "terms": {group["group"]: group["means"] for group in held.get("terms", ())},
    }


def claims(main: Mapping, over_base: Mapping, over_main: Mapping) -> dict[str, dict]:
    """What was to be shown → {verdict, margin, figures}: "yes" where the intervals of all figures lie above
    the margin, "no" where one lies below, "open" otherwise, "not measured" where one is missing. `main`: task
    → SPR over the base.
    """

    def over(name: str, figure: str) -> dict | None:
        """SPR over a variant: their difference the other way round."""
        row = over_main.get(name, {}).get("rec", {}).get(figure)
        return row and turned(row, over_base[plan.MAIN]["rec"][figure]["by_seed"])

    asked = {
        "Acc@0.9 rises by at least 3 points": ({"Acc@0.9": main["rec"].get("Acc@0.9")}, 0.03),
        "Acc@0.5 falls by no more than half a point": ({"Acc@0.5": main["rec"].get("Acc@0.5")}, -0.005),
        "the gain grows from IoU 0.5 to 0.9": ({GROWTH: main["rec"].get(GROWTH)}, 0.0),
        "grounded description: mean IoU rises": ({"mIoU": main["description"].get("mIoU")}, 0.0),
        "SPR is above SFT on the chosen at 0.8 and at 0.9": (
            {f"Acc@{t}": over("SFT on chosen", f"Acc@{t}") for t in (0.8, 0.9)},
            0.0,
        ),
        "λ 0.8 is above 0 and 1 at 0.9": (
            {f"over {name}": over(name, "Acc@0.9") for name in ("lambda 0", "lambda 1")},
            0.0,
        ),
        "questions on presence and colour: accuracy falls by no more than half a point": (
            {task: main[task].get("accuracy") for task in ("presence", "color")},
            -0.005,
        ),
    }
    return {
        claim: {"verdict": verdict(rows.values(), margin), "margin": margin, "figures": rows}
        for claim, (rows, margin) in asked.items()
    }


def verdict(rows: Iterable[Row | None], margin: float) -> str:
    """Of a claim that each of these gains is above `margin`."""
    signs = [sign(row, margin) for row in rows]
    if None in signs:
        return "not measured"
    return "no" if -1 in signs else "yes" if all(signs) else "open"


def turned(row: Row, by_seed: Sequence[float]) -> dict:
    """The same comparison the other way round; `by_seed` is that of its first side."""
    sides = {"a": row["b"], "b": row["a"], "gain": -row["gain"], "low": -row["high"], "high": -row["low"]}
    return {**row, **sides, "by_seed": by_seed}


def moves(found: Mapping[str, Units]) -> list[list[float]]:
    """Where expressions go: share of all by IoU band with the base (row) and with SPR (column), over the
    seeds that are there.
    """
    if BASE not in found or plan.MAIN not in found:
        return []
    bands = {
        name: [
            np.digitize(samples(unit, "rec")[1]["mIoU"][:, 0], metrics.THRESHOLDS)
            for unit in found[name].values()
        ]
        for name in (BASE, plan.MAIN)
    }
    edges = range(len(metrics.THRESHOLDS) + 2)
    counts = sum(np.histogram2d(bands[BASE][0], after, bins=edges)[0] for after in bands[plan.MAIN])
    return (counts / counts.sum()).tolist()


def spent(found: Mapping[str, Units]) -> dict:
    """What SPR and GRPO from one base spent, on the seeds that both have; {} where there are none."""
    seeds = sorted(found.get(plan.GRPO, {}).keys() & found.get(plan.MAIN, {}).keys())
    if not seeds or BASE not in found:
        return {}
    sides = {}
    for title, name, kind in (("SPR", plan.MAIN, "tokens of SPR"), ("GRPO", plan.GRPO, "tokens")):
        tokens = [found[plan.GRPO][seed]["GRPO"][kind] for seed in seeds]
        sides[title] = {what: [one[what] for one in tokens] for what in ("generated", "trained")}
        sides[title]["seconds"] = [found[name][seed].get("training seconds") for seed in seeds]
    return {"seeds": seeds, "spent": sides}


# --- evidence of analysis.py


def by_figure(why: Units, kind: str) -> dict[str, dict[str, dict]]:
    """Figure → seed (as text) → {value, low, high, n}."""
    found: dict = {}
    for seed, unit in sorted(why.items()):
        for row in unit[kind]:
            found.setdefault(row["figure"], {})[str(seed)] = {
                key: row[key] for key in ("value", "low", "high", "n")
            }
    return found


def parts(why: Units) -> dict[str, dict[str, dict]]:
    """Part of the expressions → Acc@… → a row, with how many were won and lost by all seeds together.

    The parts' samples are not kept, so that no interval can draw seeds: it goes from the lowest of the seeds'
    own to the highest.
    """
    rows = [row for _, unit in sorted(why.items()) for row in unit["flips"]]
    found: dict = {}
    for part, figure in dict.fromkeys((row["part"], row["figure"]) for row in rows):
        own = [row for row in rows if (row["part"], row["figure"]) == (part, figure)]
        mean = {
            key: float(np.average([row[key] for row in own], weights=[row["n"] for row in own]))
            for key in ("a", "b", "gain")
        }
        found.setdefault(part, {})[figure] = {
            **mean,
            "low": min(row["low"] for row in own),
            "high": max(row["high"] for row in own),
            "p": None,
            **{key: sum(row[key] for row in own) for key in ("n", "won", "lost")},
            "seeds": len(own),
            "by_seed": [row["b"] for row in own],
            "apart": apart([row["b"] for row in own]),
            "gains": [{key: row[key] for key in ("gain", "low", "high")} for row in own],
        }
    return found


def smallest(parts_of: Mapping[str, Mapping]) -> dict[str, dict]:
    """Figure → row of the smallest third of the objects."""
    return next((rows for part, rows in parts_of.items() if part.startswith("1st third")), {})


# --- gains and losses, for the tables of README and docs/results.md


def state(facts: Mapping) -> list[dict]:
    """What a reader should know first, gains and losses alike: {what, row}; row is None where it was not
    measured.
    """
    main, variants, over_main = facts["main"], facts["variants"], facts["against_main"]
    rows = [(f"referring expressions, IoU {t}", main["rec"].get(f"Acc@{t}")) for t in (0.5, 0.8, 0.9)]
    rows += [(f"phrase grounding, IoU {t}", main["phrases"].get(f"Acc@{t}")) for t in (0.5, 0.9)]
    small = {t: main["rec"].get(f"Acc@{t}{targets.SMALLEST}") for t in (0.5, 0.9)}
    rows += [(f"the smallest third of the objects, IoU {t}", row) for t, row in small.items()]
    described = {"precision": "precision", "recall": "recall", "mIoU": "mean IoU over all objects"}
    rows += [(f"descriptions, {title}", main["description"].get(name)) for name, title in described.items()]
    rows += [
        ("questions on colour, accuracy", main["color"].get("accuracy")),
        ("questions on presence, accuracy", main["presence"].get("accuracy")),
        ("questions on presence, Yes where it is No", main["presence"].get("false_yes")),
    ]
    for name, title in {
        "SFT noise 0": "after SFT on exact boxes",
        "SFT noise 0.16": "after SFT on coarse boxes",
        "no refinement": "without refinement",
        "2 rounds": "two rounds",
    }.items():
        rows += [(f"{title}, IoU {t}", variants.get(name, {}).get(f"Acc@{t}")) for t in (0.5, 0.9)]
    for name, title in {"SFT on chosen": "SFT on the chosen", plan.GRPO: plan.GRPO}.items():
        row = over_main.get(name, {}).get("rec", {}).get("Acc@0.9")
        rows.append((f"{title} instead of DPO, against SPR, IoU 0.9", row))
    return [{"what": what, "row": row} for what, row in rows]


def rounded(value):
    """Plain data with its floats at DIGITS digits."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
