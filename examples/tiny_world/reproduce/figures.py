"""What was found → one table of plain data, docs/reproduction.json: every figure that the docs may say, in
rows of :mod:`paired`. A row whose seeds are not all there says which are missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import paired
import plan
import targets
from spr_plugin.eval_tasks import metrics

ONE_CANDIDATE = "pairs of one candidate"  # whose answer, repaired, is chosen over itself
WHY = "why"  # results/why/: what analysis.py says of a unit
TASKS = ("rec", "phrases", "description", "presence", "color")
# Whose pairs are looked into.
STAGES = (
    plan.MAIN,
    "lambda 0",
    "lambda 1",
    "no refinement",
    "no refinement, filtered",
    "ceiling",
    "random pairs",
)
EVIDENCE = ("scores", "pairs", "log_probs")  # of analysis.py
DIGITS = 6  # that are kept: the last ones depend on the processor


# --- all of it


def findings(results: Path) -> dict:
    """All that the docs may say of a folder of results, as plain data."""
    (found, over_base), why = over_bases(results, "full"), paired.load(results / WHY).get(plan.MAIN, {})
    of_more, of_tune = over_bases(results, "scaled"), over_bases(results, "tune")
    ours = measured(found, plan.PLANS["full"], over_base)
    main, over_main = ours["main"], ours["against_main"]
    facts = {
        **{f"gain_at_{t}": main["rec"][f"Acc@{t}"]["gain"] for t in metrics.THRESHOLDS if main["rec"]},
        "paper": plan.PAPER,
        "asked": plan.TEST.numbers(),
        "resamples": metrics.RESAMPLES,
        "coverage": paired.COVERAGE,
        "apart": paired.APART,
        "as_worded": plan.AS_WORDED,
        **ours,
        "claims": claims(main, over_base, over_main),
        "variants": rec_of(over_base),
        "others": {
            name: {task: rows for task, rows in tasks.items() if task != "rec"}
            for name, tasks in over_base.items()
            if len(tasks) > 1
        },
        "ran": {name: sorted(units) for name, units in found.items()},
        "stages": {name: stage(found[name][min(found[name])]) for name in STAGES if name in found},
        "core_hours": (seconds(found) + seconds(of_more[0])) / 3600,
        "moves": moves(found),
        "grpo": spent(found),
        "why": {
            "seeds": sorted(why),
            "parts": parts(why),
            **{kind: by_figure(why, kind) for kind in EVIDENCE},
        },
        "scaled": scaled(*of_more),
        "validation": {**tried(*of_tune, plan.PLANS["tune"]), "reached": reached(*of_tune)},
        "demo": tried(*over_bases(results, "demo"), plan.PLANS["demo"]),
        "method": reached(*over_bases(results, "method")),
    }
    facts = rounded({**facts, "state": state(facts)})
    # Of what the docs print.
    judged, facts["scaled"]["targets"] = (rounded(targets.judged(one)) for one in (facts, facts["scaled"]))
    of_main = [name for name, target in targets.TARGETS.items() if target.place[0] == "main"]
    settings = [one for name, one in facts["method"].items() if not plan.METHOD[name].own_base]
    # Target that is missed → how many of the settings that were tried meet it on validation scenes.
    missed = {
        name: sum(one["targets"][name]["met"] for one in settings if name in one["targets"])
        for name in of_main
        if judged[name]["met"] is False
    }
    return {**facts, "targets": judged, "tried_for": missed, "tried": len(settings)}


def over_bases(results: Path, name: str) -> tuple[dict[str, paired.Units], dict[str, dict]]:
    """What the units of a plan found, and its variants over their bases (:func:`compared`)."""
    found = paired.load(results / plan.PLANS[name].folder)
    return found, compared(found, plan.PLANS[name])


def measured(found: Mapping[str, paired.Units], chosen: plan.Plan, over_base: Mapping[str, Mapping]) -> dict:
    """What is said of a plan's main row, and of its others against it; `over_base`: :func:`compared`."""
    main = over_base[plan.MAIN]
    return {
        "seeds": sorted(found.get(plan.MAIN, {})),
        "missing": paired.missing(found, chosen.variants),
        "main": {task: main.get(task, {}) for task in TASKS},
        "against_main": compared(found, chosen, plan.MAIN),
        "bare_names": targets.bare_names(found.get(plan.MAIN, {})),
        "pairs": pairs_by_seed(found),
    }


def scaled(found: Mapping[str, paired.Units], over_base: Mapping[str, Mapping]) -> dict:
    """What is said of the default with more data."""
    told = {"flags": plan.MORE_REGIONS, **measured(found, plan.PLANS["scaled"], over_base)}
    return {**told, "reached": reached(found, over_base)}


def compared(
    found: Mapping[str, paired.Units], chosen: plan.Plan, other: str | None = None
) -> dict[str, dict]:
    """Variant → task → figure → row, against `other`, or without it against the variant's own base. With
    `other` those alone that have the same base.
    """
    table = {}
    for name in chosen.variants:
        if name == other or (other and paired.base_of(found, name) != paired.BASE):
            continue
        tasks = {
            task: paired.against(found, other or paired.base_of(found, name), name, task) for task in TASKS
        }
        table[name] = {task: rows for task, rows in tasks.items() if rows or task == "rec"}
    return table


def tried(found: Mapping[str, paired.Units], over_base: Mapping[str, Mapping], chosen: plan.Plan) -> dict:
    """The referring expressions of a plan's variants on validation scenes."""
    return {
        "variants": rec_of(over_base),
        "against": rec_of(compared(found, chosen, chosen.lender)),
        "lender": chosen.lender,
        "ran": {name: sorted(units) for name, units in found.items()},
    }


def reached(found: Mapping[str, paired.Units], over_base: Mapping[str, Mapping]) -> dict[str, dict]:
    """Variant that ran → its pairs (of one seed), its seeds, and what it reaches of the targets of a run."""
    rows = {}
    for name in (name for name in over_base if name in found):
        facts = {"main": over_base[name], "bare_names": targets.bare_names(found[name])}
        met = {key: target for key, target in targets.judged(facts).items() if target["met"] is not None}
        missing = sum(targets.TARGETS[key].missing(target) for key, target in met.items())
        pairs, seeds = pairs_of(next(iter(found[name].values()))), sorted(found[name])
        rows[name] = {"pairs": pairs, "seeds": seeds, "targets": met, "missing": missing}
    return rows


def rec_of(table: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The referring expressions of :func:`compared`."""
    return {name: tasks["rec"] for name, tasks in table.items()}


def pairs_of(unit: Mapping) -> int | None:
    """How many preference pairs a unit's first round made."""
    return unit.get("stage", {}).get("counts", {}).get("preference pairs")


def pairs_by_seed(found: Mapping[str, paired.Units]) -> dict[str, list[int]]:
    """Variant whose pairs are known → how many, seed by seed."""
    counts = {name: [pairs_of(unit) for _, unit in sorted(units.items())] for name, units in found.items()}
    return {name: own for name, own in counts.items() if None not in own}


def seconds(found: Mapping[str, paired.Units]) -> float:
    """That all units took."""
    return sum(unit.get("seconds", 0) for units in found.values() for unit in units.values())


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
        "the gain grows from IoU 0.5 to 0.9": ({paired.GROWTH: main["rec"].get(paired.GROWTH)}, 0.0),
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


def verdict(rows: Iterable[paired.Row | None], margin: float) -> str:
    """Of a claim that each of these gains is above `margin`."""
    signs = [paired.sign(row, margin) for row in rows]
    if None in signs:
        return "not measured"
    return "no" if -1 in signs else "yes" if all(signs) else "open"


def turned(row: paired.Row, by_seed: Sequence[float]) -> dict:
    """The same comparison the other way round; `by_seed` is that of its first side."""
    sides = {"a": row["b"], "b": row["a"], "gain": -row["gain"], "low": -row["high"], "high": -row["low"]}
    return {**row, **sides, "by_seed": by_seed}


def moves(found: Mapping[str, paired.Units]) -> list[list[float]]:
    """Where expressions go: share of all by IoU band with the base (row) and with SPR (column), over the
    seeds that are there.
    """
    if paired.BASE not in found or plan.MAIN not in found:
        return []
    bands = {
        name: [
            np.digitize(paired.samples(unit, "rec")[1]["mIoU"][:, 0], metrics.THRESHOLDS)
            for unit in found[name].values()
        ]
        for name in (paired.BASE, plan.MAIN)
    }
    edges = range(len(metrics.THRESHOLDS) + 2)
    counts = sum(np.histogram2d(bands[paired.BASE][0], after, bins=edges)[0] for after in bands[plan.MAIN])
    return (counts / counts.sum()).tolist()


def spent(found: Mapping[str, paired.Units]) -> dict:
    """What SPR and GRPO from one base spent, on the seeds that both have; {} where there are none."""
    seeds = sorted(found.get(plan.GRPO, {}).keys() & found.get(plan.MAIN, {}).keys())
    if not seeds or paired.BASE not in found:
        return {}
    sides = {}
    for title, name, kind in (("SPR", plan.MAIN, "tokens of SPR"), ("GRPO", plan.GRPO, "tokens")):
        tokens = [found[plan.GRPO][seed]["GRPO"][kind] for seed in seeds]
        sides[title] = {what: [one[what] for one in tokens] for what in ("generated", "trained")}
        sides[title]["seconds"] = [found[name][seed].get("training seconds") for seed in seeds]
    return {"seeds": seeds, "spent": sides}


# --- evidence of analysis.py


def by_figure(why: paired.Units, kind: str) -> dict[str, dict[str, dict]]:
    """Figure → seed (as text) → {value, low, high, n}."""
    found: dict = {}
    for seed, unit in sorted(why.items()):
        for row in unit[kind]:
            found.setdefault(row["figure"], {})[str(seed)] = {
                key: row[key] for key in ("value", "low", "high", "n")
            }
    return found


def parts(why: paired.Units) -> dict[str, dict[str, dict]]:
    """Part of the expressions → Acc@… → how many were asked, won and lost by all seeds together, and the
    gain of each seed.
    """
    rows = [row for _, unit in sorted(why.items()) for row in unit["flips"]]
    found: dict = {}
    for part, figure in dict.fromkeys((row["part"], row["figure"]) for row in rows):
        own = [row for row in rows if (row["part"], row["figure"]) == (part, figure)]
        found.setdefault(part, {})[figure] = {
            **{key: sum(row[key] for row in own) for key in ("n", "won", "lost")},
            "gains": [{key: row[key] for key in ("gain", "low", "high")} for row in own],
        }
    return found


# --- gains and losses, for the tables of README and docs/results.md


def state(facts: Mapping) -> list[dict]:
    """What a reader should know first, gains and losses alike: {what, row, more}; row is None where it was
    not measured, `more` the same with more data, None where nothing is.
    """
    main, variants, over_main = facts["main"], facts["variants"], facts["against_main"]
    described = {"precision": "precision", "recall": "recall", "mIoU": "mean IoU over all objects"}
    figures = [
        *(("rec", f"Acc@{t}", f"referring expressions, IoU {t}") for t in (0.5, 0.8, 0.9)),
        *(("phrases", f"Acc@{t}", f"phrase grounding, IoU {t}") for t in (0.5, 0.9)),
        *(
            ("rec", f"Acc@{t}{targets.SMALLEST}", f"the smallest third of the objects, IoU {t}")
            for t in (0.5, 0.9)
        ),
        *(("description", name, f"descriptions, {title}") for name, title in described.items()),
        ("color", "accuracy", "questions on colour, accuracy"),
        ("presence", "accuracy", "questions on presence, accuracy"),
        ("presence", "false_yes", "questions on presence, Yes where it is No"),
    ]
    of_more = facts["scaled"]["main"]
    rows = [(what, main[task].get(name), of_more[task].get(name)) for task, name, what in figures]
    for name, title in {
        "SFT noise 0": "after SFT on exact boxes",
        "SFT noise 0.16": "after SFT on coarse boxes",
        plan.AS_WORDED: plan.AS_WORDED,
        "no refinement": "without refinement",
        "2 rounds": "two rounds",
    }.items():
        rows += [(f"{title}, IoU {t}", variants.get(name, {}).get(f"Acc@{t}"), None) for t in (0.5, 0.9)]
    for name, title in {"SFT on chosen": "SFT on the chosen", plan.GRPO: plan.GRPO}.items():
        row = over_main.get(name, {}).get("rec", {}).get("Acc@0.9")
        rows.append((f"{title} instead of DPO, against SPR, IoU 0.9", row, None))
    return [dict(zip(("what", "row", "more"), row)) for row in rows]


def rounded(value):
    """Plain data with its floats at DIGITS digits."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
