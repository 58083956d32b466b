"""What was found → docs/reproduction.md (between its marks), its plots, and docs/reproduction.json.

Every gain is on the same samples. Its 95 % interval draws pictures and, where a row has several, seeds, both
with replacement and the same ones for both sides. A row whose seeds are not all there says which are missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import plan
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.eval_tasks.comparison_page import plot
from spr_plugin.files import read_json, write_json

DOCS = Path(__file__).resolve().parents[3] / "docs"
BEGIN, END = "<!-- tables: written by `make reproduce` -->\n", "<!-- end of tables -->"
BASE, GROWTH = "base", "growth"
WHY = "why"  # results/why/: what analysis.py says of a unit
TITLES = {"rec": "referring expressions", "phrases": "phrase grounding", "description": "grounded description", "presence": "is there a …?",  # noqa: E501
          "color": "what colour is …?"}  # fmt: skip
CURVES = {
    "regions": {"250": "250 regions", "500": "500 regions", "1000": plan.MAIN, "4000": "4000 regions"},
    "lambda": {"0": "lambda 0", "0.2": "lambda 0.2", "0.5": "lambda 0.5", "0.8": plan.MAIN, "1": "lambda 1"},
}
EVIDENCE = {
    "scores": "Rank correlation of scores with the worth of an answer",
    "pairs": "Pairs against the truth",
    "log_probs": "Log-prob of a token, nats",
}
STAGES = (plan.MAIN, "lambda 0", "lambda 1", "no refinement", "random pairs")
CURVE_TITLES = {
    "threshold": "Gain by IoU threshold",
    "regions": "Gain at IoU 0.9 by number of regions",
    "lambda": "Gain at IoU 0.9 by λ",
}

Units = Mapping[int, dict]  # seed → what results/ holds


def load(folder: Path) -> dict[str, dict[int, dict]]:
    """Variant → seed → unit; a base has one, whatever its seed."""
    found: dict = {}
    for file in sorted(folder.glob("*.json")):
        unit = read_json(file)
        found.setdefault(unit["variant"], {})[unit.get("seed", 0)] = unit
    return found


# --- figures


def samples(unit: Mapping, task: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """(picture of each sample, figure → (n, 2) of value and weight) of one task."""
    one = unit["samples"][f"spr_tiny_world_{task}"]
    asked = sorted(one["pictures"].items())
    pictures = [picture for picture, rows in asked for _ in rows]
    rows = np.array([row for _, rows in asked for row in rows], dtype=float)
    if one["figures"] != ["IoU"]:
        return pictures, {
            name: rows[:, 2 * place : 2 * place + 2] for place, name in enumerate(one["figures"])
        }
    values = {f"Acc@{t}": rows >= t for t in metrics.THRESHOLDS} | {"mIoU": rows}
    values[GROWTH] = values[metrics.ACCURACIES[-1]].astype(float) - values[metrics.ACCURACIES[0]]
    return pictures, {name: np.column_stack([value, np.ones(len(rows))]) for name, value in values.items()}


def gains(first: Sequence[dict], second: Sequence[dict], task: str) -> dict[str, dict]:
    """Figure → {a, b, gain, low, high, n, seeds} of the units `second` against `first`, seed by seed (or one
    base for all seeds).

    UserError where two units were not asked about the same pictures.
    """
    first = list(first) * (len(second) if len(first) == 1 else 1)
    loaded = [samples(unit, task) for unit in (*first, *second)]
    pictures, names = loaded[0][0], list(loaded[0][1])
    if len(first) != len(second) or any(found[0] != pictures for found in loaded):
        raise UserError(
            f"reproduce: {first[0]['variant']} and {second[0]['variant']} were not asked about the same"
            f" pictures ({task}); run one of them again"
        )
    table = np.stack([[found[1][name] for name in names] for found in loaded])  # unit, figure, sample, 2
    sides = table.reshape(2, len(second), len(names), len(pictures), 2)
    totals = sides.sum(axis=(1, 3))  # side, figure, 2
    drawn = _draws(sides, pictures)
    asked = [k for k in range(len(names)) if totals[:, k, 1].all()]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios, values = (
            drawn[:, :, asked, 0] / drawn[:, :, asked, 1],
            totals[:, asked, 0] / totals[:, asked, 1],
        )
    low, high = np.nanpercentile(ratios[:, 1] - ratios[:, 0], (2.5, 97.5), axis=0)
    return {
        names[k]: {
            "a": a,
            "b": b,
            "gain": b - a,
            "low": low[place],
            "high": high[place],
            "n": len(pictures),
            "seeds": len(second),
        }
        for place, (k, a, b) in enumerate(zip(asked, *values))
    }


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
    """Gains of variant `b` over variant or base `a` on the seeds that both have; {} where there are none."""
    if a not in found or b not in found:
        return {}
    if a.startswith(BASE):
        return gains(list(found[a].values()), list(found[b].values()), task)
    seeds = sorted(found[a].keys() & found[b].keys())
    return (
        gains([found[a][seed] for seed in seeds], [found[b][seed] for seed in seeds], task) if seeds else {}
    )


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


# --- claims


def claims(main: Mapping[str, dict], found: Mapping[str, Units]) -> dict[str, dict]:
    """What was to be shown → {holds, figures}: whether it is so (None where it was not measured), by which
    rows of `gains`. `main`: task → SPR over the base.
    """
    rec = main["rec"]
    over = {
        name: against(found, name, plan.MAIN, "rec") for name in ("SFT on chosen", "lambda 0", "lambda 1")
    }
    sft = {f"Acc@{t}": over["SFT on chosen"].get(f"Acc@{t}") for t in (0.8, 0.9)}
    lambdas = {f"against {name}": over[name].get("Acc@0.9") for name in ("lambda 0", "lambda 1")}
    general = {task: main[task].get("accuracy") for task in ("presence", "color")}
    asked = {
        "Acc@0.9 rises by at least 3 points, its interval above 0": (
            {"Acc@0.9": rec.get("Acc@0.9")},
            lambda row: row["gain"] >= 0.03 and row["low"] > 0,
        ),
        "Acc@0.5 falls by no more than half a point": (
            {"Acc@0.5": rec.get("Acc@0.5")},
            lambda row: row["gain"] >= -0.005,
        ),
        "the gain grows from IoU 0.5 to 0.9, the interval of the difference above 0": (
            {GROWTH: rec.get(GROWTH)},
            lambda row: row["low"] > 0,
        ),
        "grounded description: mean IoU rises, its interval above 0": (
            {"mIoU": main["description"].get("mIoU")},
            lambda row: row["low"] > 0,
        ),
        "SPR is above SFT on the chosen at 0.8 and at 0.9": (sft, lambda row: row["gain"] > 0),
        "λ 0.8 is not below 0 and 1 at 0.9 beyond chance": (lambdas, lambda row: row["high"] >= 0),
        "questions on presence and colour: accuracy falls by no more than half a point": (
            general,
            lambda row: row["gain"] >= -0.005,
        ),
    }
    return {
        claim: {
            "holds": all(holds(row) for row in rows.values()) if all(rows.values()) else None,
            "figures": rows,
        }
        for claim, (rows, holds) in asked.items()
    }


# --- output


def write(results: Path, docs: Path = DOCS) -> str:
    """All tables, plots and the JSON; the text of the tables."""
    docs.mkdir(parents=True, exist_ok=True)
    found, tuned = load(results), load(results / "validation")
    main = {task: against(found, BASE, plan.MAIN, task) for task in TITLES}
    rec = {name: against(found, base_of(found, name), name, "rec") for name in plan.VARIANTS}
    shown, gaps = claims(main, found), missing(found, plan.VARIANTS)
    text = "\n".join([*_main(main), *_seeds(found, gaps), *_claims(shown), *_variants(found, rec, "Variants"), *_grpo(found), *_plots(rec, docs), *_moves(found), *_stages(found),  # noqa: E501
                      *_why(load(results / WHY).get(plan.MAIN, {})),
                      *_variants(tuned, {name: against(tuned, BASE, name, "rec") for name in plan.TUNE}, "Settings tried on validation scenes")])  # fmt: skip  # noqa: E501
    file = docs / "reproduction.md"
    old = file.read_text(encoding="utf-8") if file.exists() else BEGIN + END
    file.write_text(old[: old.index(BEGIN) + len(BEGIN)] + text + old[old.index(END) :], encoding="utf-8")
    summary = {f"gain_at_{t}": main["rec"][f"Acc@{t}"]["gain"] for t in metrics.THRESHOLDS if main["rec"]}
    seeds = sorted(found.get(plan.MAIN, {}))
    write_json(
        docs / "reproduction.json",
        {**summary, "seeds": seeds, "missing": gaps, "main": main, "claims": shown, "variants": rec},
    )
    return text


def _main(main: Mapping[str, dict]) -> list[str]:
    lines = [
        "## Base against SPR",
        "",
        "Percent; gains in points, their 95 % intervals over pictures and seeds.",
        "",
    ]
    for task, title in TITLES.items():
        rows = main[task]
        lines += [f"| {title} | base | SPR | gain | 95 % interval |", "|---|--:|--:|--:|:-:|"] if rows else []
        lines += [f"| {name} | {_percent(row['a'])} | {_percent(row['b'])} | {_points(row['gain'])} | {_interval(row)} |"  # noqa: E501
                  for name, row in rows.items() if name != GROWTH]  # fmt: skip
        lines += [f"| *samples* | {next(iter(rows.values()))['n']} | | | |", ""] if rows else []
    if main["rec"]:
        lines += [
            (
                f"From IoU 0.5 to 0.9 the gain grows by {_points(main['rec'][GROWTH]['gain'])}"
                f" ({_interval(main['rec'][GROWTH])})."
            ),
            "",
        ]
    return lines


def _seeds(found: Mapping[str, Units], gaps: Mapping[str, list[int]]) -> list[str]:
    there = ", ".join(map(str, sorted(found.get(plan.MAIN, {})))) or "none"
    named = "; ".join(f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in gaps.items())
    return [
        f"Seeds of these figures: {there}.",
        "",
        *([f"**Missing, not averaged over**: {named}.", ""] if gaps else []),
    ]


def _claims(shown: Mapping[str, Mapping]) -> list[str]:
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines = [
        "## What it was to show",
        "",
        "| | here | by, in points (95 % interval) | seeds |",
        "|---|---|---|--:|",
    ]
    for claim, verdict in shown.items():
        rows = {name: row for name, row in verdict["figures"].items() if row}
        figures = "; ".join(f"{name} {_points(row['gain'])} ({_interval(row)})" for name, row in rows.items())
        lines.append(
            f"| {claim} | {words[verdict['holds']]} | {figures} |"
            f" {', '.join(sorted({str(row['seeds']) for row in rows.values()}))} |"
        )
    return [*lines, ""]


def _variants(found: Mapping[str, Units], rec: Mapping[str, dict], title: str) -> list[str]:
    """Gains over the base on referring expressions, and the difference from ``main`` at 0.9 on the same
    seeds.
    """
    lines = [
        f"## {title}",
        "",
        "| | seeds | base@0.9 | 0.5 | 0.6 | 0.7 | 0.8 | 0.9 | 95 % interval | 0.9 against main |",
    ]
    lines.append("|---|--:|" + "--:|" * 6 + ":-:|:-:|")
    for name, rows in rec.items():
        if rows:
            last, seeds = rows["Acc@0.9"], ", ".join(map(str, sorted(found[name])))
            other = (
                against(found, plan.MAIN, name, "rec")
                if name != plan.MAIN and base_of(found, name) == BASE
                else {}
            )
            differs = f"{_points(other['Acc@0.9']['gain'])} ({_interval(other['Acc@0.9'])})" if other else ""
            gained = " | ".join(_points(rows[figure]["gain"]) for figure in metrics.ACCURACIES)
            lines.append(
                f"| {name} | {seeds} | {_percent(last['a'])} | {gained} | {_interval(last)} | {differs} |"
            )
    return [*lines, ""] if any(rec.values()) else []


def _grpo(found: Mapping[str, Units]) -> list[str]:
    """SPR and GRPO from one base on the same seeds, with what each spent."""
    seeds = sorted(found.get(plan.GRPO, {}).keys() & found.get(plan.MAIN, {}).keys())
    if not seeds or BASE not in found:
        return []
    lines = [
        f"## SPR against {plan.GRPO}",
        "",
        (
            f"Seed {', '.join(map(str, seeds))}; tokens of answers: sampled, and in the loss (once for each"
            " pass)."
        ),
        "",
    ]
    lines += ["| | generated tokens | trained tokens | training, seconds |", "|---|--:|--:|--:|"]
    for title, name, kind in (("SPR", plan.MAIN, "tokens of SPR"), ("GRPO", plan.GRPO, "tokens")):
        spent = [found[plan.GRPO][seed]["GRPO"][kind] for seed in seeds]
        wall = [found[name][seed].get("training seconds", "not known") for seed in seeds]
        columns = [one["generated"] for one in spent], [one["trained"] for one in spent], wall
        lines.append(f"| {title} | " + " | ".join(", ".join(map(str, column)) for column in columns) + " |")
    for task, title in TITLES.items():
        base, differs = against(found, BASE, plan.GRPO, task), against(found, plan.MAIN, plan.GRPO, task)
        lines += [
            "",
            f"| {title} | base | SPR | GRPO | GRPO against SPR | 95 % interval |",
            "|---|--:|--:|--:|--:|:-:|",
        ]
        lines += [f"| {name} | {_percent(base[name]['a'])} | {_percent(row['a'])} | {_percent(row['b'])} | {_points(row['gain'])} | {_interval(row)} |"  # noqa: E501
                  for name, row in differs.items() if name != GROWTH]  # fmt: skip
    return [*lines, ""]


def _moves(found: Mapping[str, Units]) -> list[str]:
    """Where expressions go: IoU with the base → IoU with SPR, in percent of all, over the seeds that are
    there.
    """
    if BASE not in found or plan.MAIN not in found:
        return []
    names = ["below 0.5", "0.5", "0.6", "0.7", "0.8", "0.9 and more"]
    bands = {
        name: [
            np.digitize(samples(unit, "rec")[1]["mIoU"][:, 0], metrics.THRESHOLDS)
            for unit in found[name].values()
        ]
        for name in (BASE, plan.MAIN)
    }
    counts = sum(
        np.histogram2d(bands[BASE][0], after, bins=range(len(names) + 1))[0] for after in bands[plan.MAIN]
    )
    lines = [
        "## Which expressions move",
        "",
        "Percent of all; rows: IoU of the base from …, columns: with SPR.",
        "",
    ]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    return [
        *lines,
        *(
            f"| {name} | " + " | ".join(_percent(value) for value in row) + " |"
            for name, row in zip(names, counts / counts.sum())
        ),
        "",
    ]


def _stages(found: Mapping[str, Units]) -> list[str]:
    """What DPO was given: the mean terms of chosen and rejected answers, and how the scores go with S_loc
    among the answers to one region.
    """
    terms = ("s_crop", "s_local", "s_loc", "S")
    heads = " | ".join(("", "pairs", "answers", *terms, "correlation of S_sem, S with S_loc"))
    lines = [
        "## What separates chosen from rejected",
        "",
        f"|{heads} |",
        "|---|--:|---|" + "--:|" * 4 + ":-:|",
    ]
    for name, unit in [(name, found[name][min(found[name])]) for name in STAGES if name in found]:
        for group in unit.get("stage", {}).get("terms", ()):
            first = group["group"] == "all candidates"
            link = ", ".join(map(str, unit["stage"]["correlation with S_loc"].values())) if first else ""
            front = f"{name} | {unit['stage']['counts']['preference pairs']}" if first else " | "
            lines.append(
                f"| {front} | {group['group']} | "
                + " | ".join(group["means"].get(term, "") for term in terms)
                + f" | {link} |"
            )
    return [*lines, ""] if len(lines) > 4 else []


def _why(found: Units) -> list[str]:
    """What analysis.py found, a column a seed."""
    if not found:
        return []
    gaps = ", ".join(str(seed) for seed in plan.VARIANTS[plan.MAIN].seeds if seed not in found)
    lines = [
        "## Why",
        "",
        f"Seeds that were looked into: {', '.join(map(str, sorted(found)))}{gaps and '; missing: '}{gaps}.",
        "",
        *_flips(found),
    ]
    for key, title in EVIDENCE.items():
        rows = {seed: unit[key] for seed, unit in found.items()}
        lines += _by_seed(
            title, rows, lambda row: f"{row['value']:.3f} ({row['low']:.3f} … {row['high']:.3f})"
        )
    return lines


def _flips(found: Units) -> list[str]:
    """Won and lost by part and threshold, summed over the seeds that are there, and each seed's gain at the
    highest threshold.
    """
    lines = [
        "Expressions won and lost, by IoU, these seeds together:",
        "",
        "| | n | " + " | ".join(map(str, metrics.THRESHOLDS)) + " |",
    ]
    lines.append("|---|--:|" + "--:|" * len(metrics.THRESHOLDS))
    rows = [row for unit in found.values() for row in unit["flips"]]
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [
            [row for row in rows if (row["part"], row["figure"]) == (part, figure)]
            for figure in metrics.ACCURACIES
        ]
        cells = " | ".join(
            f"+{sum(row['won'] for row in one)} −{sum(row['lost'] for row in one)}" for one in own
        )
        lines.append(f"| {part} | {sum(row['n'] for row in own[0])} | {cells} |")
    last = {
        seed: [
            {**row, "figure": row["part"]} for row in unit["flips"] if row["figure"] == metrics.ACCURACIES[-1]
        ]
        for seed, unit in found.items()
    }
    return [
        *lines,
        "",
        *_by_seed("Gain at IoU 0.9, points", last, lambda row: f"{_points(row['gain'])} ({_interval(row)})"),
    ]


def _by_seed(title: str, found: Mapping[int, Sequence[dict]], shown) -> list[str]:
    """A row a figure, a column a seed."""
    cells = {seed: {row["figure"]: shown(row) for row in rows} for seed, rows in sorted(found.items())}
    lines = [
        f"| {title} | " + " | ".join(f"seed {seed}" for seed in cells) + " |",
        "|---|" + ":-:|" * len(cells),
    ]
    figures = dict.fromkeys(figure for one in cells.values() for figure in one)
    return [
        *lines,
        *(
            f"| {figure} | " + " | ".join(one.get(figure, "") for one in cells.values()) + " |"
            for figure in figures
        ),
        "",
    ]


def _plots(rec: Mapping[str, dict], docs: Path) -> list[str]:
    curves = {
        name: [{**rec[of]["Acc@0.9"], "figure": label} for label, of in points.items() if rec[of]]
        for name, points in CURVES.items()
    }
    curves["threshold"] = [
        {**rec[plan.MAIN][name], "figure": name} for name in metrics.ACCURACIES if rec[plan.MAIN]
    ]
    lines = []
    for name, title in CURVE_TITLES.items():
        if len(curves[name]) > 1:
            (docs / f"reproduction-{name}.svg").write_text(plot(curves[name]) + "\n", encoding="utf-8")
            lines += [f"{title}:", "", f"![{title}](reproduction-{name}.svg)", ""]
    return lines


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(row: Mapping) -> str:
    return f"{_points(row['low'])} … {_points(row['high'])}"
