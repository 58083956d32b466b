"""What was found (figures.py) → docs/reproduction.json, and docs/reproduction.md with its plots.

The page is reproduction.md.jinja, whose every number is an expression on the JSON, with the tables of this
module in it. Run alone it writes everything anew from the committed results; the tables of gains and losses
on other pages follow by the second command:

    python examples/tiny_world/reproduce/tables.py
    python docs/generate.py
"""

import functools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # scripts, no packages

import figures  # noqa: E402
import paired  # noqa: E402
import plan  # noqa: E402
import reasons  # noqa: E402
import targets  # noqa: E402
import words  # noqa: E402
from paired import BOXES, GROWTH  # noqa: E402
from spr_plugin.config import SPRConfig  # noqa: E402
from spr_plugin.eval_tasks import metrics  # noqa: E402
from spr_plugin.files import read_json, write_text  # noqa: E402
from spr_plugin.report import charts  # noqa: E402
from spr_plugin.report.rendering import template  # noqa: E402
from words import interval, percent, points  # noqa: E402

ROOT = HERE.parents[2]
DOCS, RESULTS = ROOT / "docs", HERE / "results"
TEMPLATE = HERE / "reproduction.md.jinja"
TITLES = {"rec": "referring expressions", "phrases": "phrase grounding", "description": "grounded description", "presence": "is there a …?",  # noqa: E501
          "color": "what colour is …?"}  # fmt: skip
IN_PERCENT = f"Percent; gains in points, their {paired.COVERAGE} % intervals over pictures and seeds."
CURVES = {
    "regions": {"250": "250 regions", "500": "500 regions", "1000": plan.MAIN, "4000": "4000 regions"},
    "lambda": {"0": "lambda 0", "0.2": "lambda 0.2", "0.5": "lambda 0.5", "0.8": plan.MAIN, "1": "lambda 1"},
}
CURVE_TITLES = {
    "threshold": "Gain by IoU threshold",
    "regions": "Gain at IoU 0.9 by number of regions",
    "lambda": "Gain at IoU 0.9 by λ",
}


def write(results: Path, docs: Path = DOCS) -> str:
    """The JSON, the page and its plots; the text of the page."""
    docs.mkdir(parents=True, exist_ok=True)
    written = json.dumps(figures.findings(results), indent=1, ensure_ascii=False)
    # a line for each row
    written = re.sub(r"\{[^{}]*\}", lambda row: " ".join(row[0].split()), written)
    write_text(docs / "reproduction.json", written + "\n")
    facts = read_json(docs / "reproduction.json")
    for name, curve in curves(facts).items():
        (docs / f"reproduction-{name}.svg").write_text(plot(curve) + "\n", encoding="utf-8")
    text = page(facts)
    (docs / "reproduction.md").write_text(text, encoding="utf-8")
    return text


def plot(rows: Sequence[Mapping]) -> str:
    """The gain of each row with its interval as SVG."""
    return str(template("charts.html").module.svg(charts.gains(rows)))


def page(facts: Mapping) -> str:
    """docs/reproduction.md of these facts."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        facts=facts,
        words=words,
        row=functools.partial(targets.row_of, facts),
        targets=targets,
        default=default,
        tables=tables(facts),
    )


def default(name: str) -> str:
    """The value of ``--spr_NAME`` that no flag gives, as a command line has it."""
    config = SPRConfig(spr=True)
    value = config.losses()[1] if name == "loss_weights" else getattr(config, f"spr_{name}")
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in as_list(value))


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def tables(facts: Mapping) -> str:
    return "\n".join(
        [
            *_main(facts),
            *_claims(facts["claims"]),
            *_variants(
                "Variants", facts["variants"], facts["ran"], figures.rec_of(facts["against_main"]), plan.MAIN
            ),
            *_reached("The default with more data, by all targets", facts["scaled"]["reached"]),
            *_grpo(facts),
            *_plots(facts),
            *reasons.moves(facts["moves"]),
            *reasons.stages(facts["stages"]),
            *reasons.why(facts["why"]),
            *_tried("SPR as the paper words it: settings tried on validation scenes", facts["validation"]),
            *_reached("The same by all targets", facts["validation"]["reached"]),
            *_tried("The demo's rate on validation scenes", facts["demo"]),
            *_reached("The method's own flags on validation scenes", facts["method"]),
        ]
    )


def state(facts: Mapping) -> str:
    """What SPR gains and loses, one table; with a column of more data where the rows have that."""
    heads, rules = "| | before → after | points (95 % interval) | | seeds |", "|---|:-:|:-:|---|--:|"
    if scaled := any("more" in one for one in facts["state"]):
        heads, rules = f"{heads} with `{plan.MORE_REGIONS}` | |", f"{rules}:-:|---|"
    lines = [heads, rules]
    for one in facts["state"]:
        row, more = one["row"], one.get("more")
        cells = [*_cells(row), words.word(row), str(row["seeds"]) if row else ""]
        if scaled:
            cells += [_cells(more)[1], words.word(more)] if more else ["", ""]
        lines.append(f"| {one['what']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: Mapping | None) -> tuple[str, str]:
    """Before and after, and the gain, which seeds that are apart have none of."""
    if row is None:
        return "", ""
    after = words.by_seed(row) if row["apart"] else percent(row["b"])
    return f"{percent(row['a'])} → {after}", "" if row[
        "apart"
    ] else f"{points(row['gain'])} ({interval(row)})"


def _main(facts: Mapping) -> list[str]:
    lines = ["## Base against SPR", "", IN_PERCENT, ""]
    for task, title in TITLES.items():
        rows = {name: row for name, row in facts["main"][task].items() if name not in (GROWTH, BOXES)}
        if rows:
            lines += [f"| {title} | base | SPR | gain | 95 % interval | |", "|---|--:|--:|--:|:-:|---|"]
            lines += [f"| {name} | {_sides(row)} | {words.word(row)} |" for name, row in rows.items()]
            lines += [f"| *samples* | {next(iter(rows.values()))['n']} | | | | |", ""]
    named = "; ".join(
        f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in facts["missing"].items()
    )
    return [
        *lines,
        f"Seeds of these figures: {', '.join(map(str, facts['seeds'])) or 'none'}.",
        "",
        *([f"**Missing, not averaged over**: {named}.", ""] if named else []),
    ]


def _sides(row: Mapping) -> str:
    """Before, after, gain and interval; of seeds that are apart each one's value, and no gain."""
    if row["apart"]:
        return f"{percent(row['a'])} | {words.by_seed(row)} | | "
    return f"{percent(row['a'])} | {percent(row['b'])} | {points(row['gain'])} | {interval(row)}"


def _claims(shown: Mapping[str, Mapping]) -> list[str]:
    lines = [
        "## What it was to show",
        "",
        "*Yes* where the whole interval says so, *no* where it says the contrary, *open* otherwise.",
        "",
        "| | here | by, in points (95 % interval) | seeds |",
        "|---|---|---|--:|",
    ]
    for claim, verdict in shown.items():
        rows = {name: row for name, row in verdict["figures"].items() if row}
        named = "; ".join(f"{name} {points(row['gain'])} ({interval(row)})" for name, row in rows.items())
        seeds = ", ".join(sorted({str(row["seeds"]) for row in rows.values()}))
        lines.append(f"| {claim} | {verdict['verdict']} | {named} | {seeds} |")
    return [*lines, ""]


def _variants(
    title: str,
    over_base: Mapping[str, Mapping],
    ran: Mapping[str, Sequence[int]],
    over_other: Mapping[str, Mapping],
    other: str,
) -> list[str]:
    """Gains over the base on referring expressions, and the difference from `other` at 0.9 on the same
    seeds.
    """
    lines = [
        f"## {title}",
        "",
        f"| | seeds | base@0.9 | 0.5 | 0.6 | 0.7 | 0.8 | 0.9 | 95 % interval | 0.9 against {other} | |",
        "|---|--:|" + "--:|" * 6 + ":-:|:-:|---|",
    ]
    for name, rows in over_base.items():
        if rows:
            last, differs = rows["Acc@0.9"], over_other.get(name, {}).get("Acc@0.9")
            gained = " | ".join(points(rows[figure]["gain"]) for figure in metrics.ACCURACIES)
            seeds = ", ".join(map(str, ran[name]))
            against = (
                f"{points(differs['gain'])} ({interval(differs)}) | {words.word(differs)}"
                if differs
                else " | "
            )
            lines.append(
                f"| {name} | {seeds} | {percent(last['a'])} | {gained} | {interval(last)} | {against} |"
            )
    return [*lines, ""] if any(over_base.values()) else []


def _tried(title: str, found: Mapping) -> list[str]:
    return _variants(title, *(found[part] for part in ("variants", "ran", "against", "lender")))


def _reached(title: str, variants: Mapping[str, Mapping]) -> list[str]:
    """What each of the method's settings reaches of the targets; in bold what it meets."""
    names = [name for name in targets.TARGETS if any(name in one["targets"] for one in variants.values())]
    if not names:
        return []
    lines = [
        f"## {title}",
        "",
        "Points over the base, with intervals in the JSON; bold: the target is met. *Missing*: by how many of"
        " their margins the targets are missed, in all; of settings that miss as little the plainer one is"
        " taken.",
        "",
        f"| | seeds | pairs | {' | '.join(f'`{name}`' for name in names)} | met | missing |",
        "|---|" + "--:|" * (len(names) + 4),
        f"| *asked* | | | {' | '.join(points(targets.TARGETS[name].asked) for name in names)} | | |",
    ]
    for variant, found in variants.items():
        reached = [found["targets"].get(name) for name in names]
        cells = [_in_bold(points(one["gain"]), one["met"]) if one else "" for one in reached]
        met = sum(one["met"] for one in reached if one)
        lines.append(
            f"| {variant} | {', '.join(map(str, found['seeds']))} | {found['pairs']} | {' | '.join(cells)}"
            f" | {met} | {found['missing']:.1f} |"
        )
    return [*lines, ""]


def _in_bold(text: str, really: bool) -> str:
    return f"**{text}**" if really else text


def _grpo(facts: Mapping) -> list[str]:
    """SPR and GRPO from one base on the same seeds, with what each spent."""
    if not facts["grpo"]:
        return []
    seeds = ", ".join(map(str, facts["grpo"]["seeds"]))
    lines = [
        f"## SPR against {plan.GRPO}",
        "",
        f"Seed {seeds}; tokens of answers: sampled, and in the loss (once for each pass).",
        "",
        "| | generated tokens | trained tokens | training, seconds |",
        "|---|--:|--:|--:|",
    ]
    for title, spent in facts["grpo"]["spent"].items():
        columns = [
            ["not known" if one is None else one for one in spent[kind]]
            for kind in ("generated", "trained", "seconds")
        ]
        lines.append(f"| {title} | " + " | ".join(", ".join(map(str, column)) for column in columns) + " |")
    for task, rows in facts["against_main"].get(plan.GRPO, {}).items():
        base = facts["variants"][plan.GRPO] if task == "rec" else facts["others"][plan.GRPO][task]
        lines += [
            "",
            f"| {TITLES[task]} | base | SPR | GRPO | GRPO against SPR | 95 % interval | |",
            "|---|--:|--:|--:|--:|:-:|---|",
        ]
        lines += [
            f"| {name} | {percent(base[name]['a'])} | {_sides(row)} | {words.word(row)} |"
            for name, row in rows.items()
            if name not in (GROWTH, BOXES)
        ]
    return [*lines, ""]


def curves(facts: Mapping) -> dict[str, list[dict]]:
    """Plot → its points, where there are several."""
    rec = facts["variants"]
    found = {
        name: [{**rec[of]["Acc@0.9"], "figure": label} for label, of in points_of.items() if rec[of]]
        for name, points_of in CURVES.items()
    }
    main = rec[plan.MAIN]
    found["threshold"] = [{**main[name], "figure": name} for name in metrics.ACCURACIES if main]
    return {name: found[name] for name in CURVE_TITLES if len(found[name]) > 1}


def _plots(facts: Mapping) -> list[str]:
    shown = [(name, CURVE_TITLES[name]) for name in curves(facts)]
    return [
        line
        for name, title in shown
        for line in (f"{title}:", "", f"![{title}](reproduction-{name}.svg)", "")
    ]


if __name__ == "__main__":
    print(write(RESULTS))
