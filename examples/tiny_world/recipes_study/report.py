"""What the study of recipes found → docs/recipes-measured.json, and the tables that docs/generate.py puts on
the recipes' pages. Every word of a gain follows from its interval (reproduce/words.py).

    python examples/tiny_world/recipes_study/report.py
    python docs/generate.py
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "reproduce"), str(HERE.parent)]  # scripts, no packages

import kept  # noqa: E402
import settings  # noqa: E402
from kept import AFTER, BASE, EMBEDDED  # noqa: E402

import figures  # noqa: E402
import paired  # noqa: E402
import words  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.files import read_json, write_text  # noqa: E402

ROOT = HERE.parents[2]
RESULTS, FACTS = HERE / "results", ROOT / "docs" / "recipes-measured.json"
ALL = "all"  # kinds together
TRIED = ("0.5", "0.8", "0.9")
# SPR's own questions: task → its figures that are shown.
OWN = {
    "rec": [f"Acc@{t}" for t in TRIED],
    "phrases": ["Acc@0.5"],
    "description": ["mIoU", "precision", "recall"],
    "presence": ["accuracy"],
    "color": ["accuracy"],
}
TITLES = {
    "rec": "referring expressions",
    "phrases": "phrase grounding",
    "description": "descriptions",
    "presence": "questions on presence",
    "color": "questions on colour",
    "exact": "right answers",
    "answer": "right answers",
    "format": "answers in form",
    "scene": "boxes of the scene, S",
    "reward": "mean reward",
}


# --- findings


def findings(results: Path = RESULTS) -> dict:
    """All that the docs say, as plain data."""
    embedded = read_json(results / f"{EMBEDDED}.json")
    table = {name: found(results, name, embedded) for name in settings.RECIPES}
    return figures.rounded({name: one for name, one in table.items() if one})


def found(results: Path, recipe: str, embedded: Mapping | None) -> dict:
    """What was found of one recipe: what validation scenes say alone, where no held-out ones were asked."""
    units = kept.load(results, recipe)
    before = [unit for unit in units if unit["variant"] == BASE]
    after = sorted((unit for unit in units if unit["variant"] == AFTER), key=lambda unit: unit["seed"])
    tried = validation(results / "validation", recipe)
    if not before or not after:
        return {"validation": tried} if tried["sizes"] else {}
    asked, blind = kept.asked_of(before[0], recipe), before[0]["blind"]
    own = {task: paired.gains(before, after, task) for task in OWN}
    cold = {task: paired.gains([embedded], before, task) for task in OWN} if embedded else {}
    return {
        "seeds": [unit["seed"] for unit in after],
        "rate": after[0]["rate"],
        "worked": before[0]["worked"],
        "conversations": before[0]["conversations"],
        "questions": paired.gains(before, after, recipe),
        "asked": asked,
        "blind": {**blind, ALL: sum(blind[kind] * asked[kind] for kind in asked) / sum(asked.values())},
        "own": shown(own),
        "cold start": shown(cold),
        "stages": [
            {name: unit[name] for name in ("counts", "answers", "by kind", "terms")} for unit in after
        ],
        "commonest": {BASE: before[0]["commonest"], AFTER: [unit["commonest"] for unit in after]},
        "validation": tried,
    }


def shown(tasks: Mapping[str, Mapping]) -> dict:
    return {task: {name: rows[name] for name in OWN[task] if name in rows} for task, rows in tasks.items()}


def validation(folder: Path, recipe: str) -> dict:
    """Cold starts by size and rates, on validation scenes."""
    units, main = kept.load(folder, recipe), settings.RECIPES[recipe].main
    before = {unit["worked"]: unit for unit in units if unit["variant"] == BASE}
    after = {unit["rate"]: unit for unit in units if unit["variant"] == AFTER and unit["samples"]}
    empty = [unit["by kind"] for unit in units if unit["variant"] == AFTER and not unit["samples"]]
    sizes = {}
    for worked, unit in sorted(before.items()):
        rows = paired.gains([unit], [unit], recipe)
        sizes[str(worked)] = {name: row["a"] for name, row in rows.items()}
    rates = {}
    for rate, unit in sorted(after.items(), key=lambda one: float(one[0])):
        rows = paired.gains([before[unit["worked"]]], [unit], recipe)
        rates[rate] = {name: rows[name] for name in (main, "reward")} | {"counts": unit["counts"]}
    return {"sizes": sizes, "rates": rates, "no pair": empty[:1]}


def chosen(results: Path, recipe: str) -> str:
    """The rate with most right answers on validation scenes; of equals the lower one."""
    found, studied = validation(results / "validation", recipe)["rates"], settings.RECIPES[recipe]
    if missing := [rate for rate in studied.rates if rate not in found]:
        raise UserError(f"recipes: {recipe}: rate {', '.join(missing)} was not tried yet: `study.py tune`")
    return max(studied.rates, key=lambda rate: (found[rate][studied.main]["b"], -float(rate)))


def write(results: Path = RESULTS, file: Path = FACTS) -> None:
    """The JSON, a line for each row."""
    written = json.dumps(findings(results), indent=1, ensure_ascii=False)
    written = re.sub(r"\{[^{}]*\}", lambda row: " ".join(row[0].split()), written)
    write_text(file, written + "\n")


# --- tables


def measured(recipe: str, facts: Mapping | None = None) -> str:
    """What was found of a recipe, as the part of its page."""
    facts = (read_json(FACTS) if facts is None else facts).get(recipe)
    if not facts:
        return "Not measured on the tiny world yet."
    studied = settings.RECIPES[recipe]
    if "questions" not in facts:
        tried = facts["validation"]
        return f"Not measured on held-out scenes yet. {_sizes(tried, studied)}{_no_pair(tried)}"
    lines = [
        *_how(facts, studied),
        *_table("its own questions", _questions(facts, studied)),
        *_table("SPR's own questions", _own(facts["own"])),
        *_cold_start(facts),
        *_commonest(facts),
        *_stages(facts),
        *_tried(facts, studied),
    ]
    return "\n".join(lines).rstrip()


def _how(facts: Mapping, studied: settings.Studied) -> list[str]:
    asked = facts["questions"][studied.main]["n"]
    return [
        f"One cold start by LLaVA's own trainer ({facts['worked']} worked answers, and conversations about"
        f" {facts['conversations']} scenes so that SPR's questions are not unlearned), then the stage with"
        f" seeds {words.listed(facts['seeds'])}, which differ in scenes, questions and sampling. lmms-eval"
        f" asks {asked} of the recipe's questions and SPR's own, about scenes that no training saw. Percent,"
        f" gains in points with {paired.COVERAGE} % bootstrap intervals over scenes and seeds"
        f" (`{settings.STUDY}`).",
        "",
    ]


def _questions(facts: Mapping, studied: settings.Studied) -> list[tuple[str, Mapping]]:
    rows, blind = facts["questions"], facts["blind"]
    kinds = [
        (f"`{kind}` (same answer to all: {words.percent(blind[kind])})", {**rows[kind], "n": count})
        for kind, count in facts["asked"].items()
    ]
    others = [(TITLES[name], row) for name, row in rows.items() if name in TITLES and name != studied.main]
    whole = f"**{TITLES[studied.main]}** (same answer to all of a kind: {words.percent(blind[ALL])})"
    return [(whole, rows[studied.main]), *kinds, *others]


def _own(tasks: Mapping[str, Mapping]) -> list[tuple[str, Mapping]]:
    return [
        (f"{TITLES[task]}, {name.replace('Acc@', 'IoU ').replace('mIoU', 'mean IoU')}", row)
        for task, rows in tasks.items()
        for name, row in rows.items()
    ]


def _table(title: str, rows: Sequence[tuple[str, Mapping]]) -> list[str]:
    lines = [f"| {title} | {BASE} | DPO | points | | n |", "|---|--:|--:|:-:|---|--:|"]
    for name, row in rows:
        after = words.by_seed(row) if row["apart"] else words.percent(row["b"])
        gain = "" if row["apart"] else f"{words.points(row['gain'])} ({words.interval(row)})"
        called = words.word(row)
        lines.append(f"| {name} | {words.percent(row['a'])} | {after} | {gain} | {called} | {row['n']} |")
    return [*lines, ""]


def _cold_start(facts: Mapping) -> list[str]:
    """What the cold start itself did to SPR's questions."""
    told = [f"{name} {words.said(row)}" for name, row in _own(facts["cold start"])]
    return [f"The cold start itself, over the embedded model: {'; '.join(told)}.", ""] if told else []


def _commonest(facts: Mapping) -> list[str]:
    """How often the model says the same."""
    before, after = facts["commonest"][BASE], facts["commonest"][AFTER]
    told = [
        f"`{kind}` {words.percent(share)} → {words.listed([words.percent(one[kind]) for one in after])}"
        for kind, share in before.items()
    ]
    return [f"Share of the commonest answer to a kind, percent, → by seed: {'; '.join(told)}.", ""]


def _stages(facts: Mapping) -> list[str]:
    """What became of the questions of all seeds, by kind."""
    kinds: dict[str, Counter] = {}
    for stage in facts["stages"]:
        for kind, why in stage["by kind"].items():
            kinds.setdefault(kind, Counter()).update(why)
    names = sorted({name for why in kinds.values() for name in why} - {"pair"})
    heads = " | ".join(["asked by the stage, all seeds", "questions", "pairs", *map("`{}`".format, names)])
    lines = [f"| {heads} |", "|---|" + "--:|" * (2 + len(names))]
    for kind, why in sorted(kinds.items()):
        cells = [sum(why.values()), why["pair"], *(why[name] for name in names)]
        lines.append(f"| `{kind}` | {' | '.join(map(str, cells))} |")
    trained = words.listed([stage["counts"]["preference pairs"] for stage in facts["stages"]])
    return [*lines, "", f"Pairs by seed: {trained}.", ""]


def _sizes(tried: Mapping, studied: settings.Studied) -> str:
    sizes = [
        f"{worked} worked answers give {words.percent(one[studied.main])} right ones,"
        f" {words.percent(one['format'])} in form"
        for worked, one in tried["sizes"].items()
    ]
    return f"Cold start, on validation scenes: {'; '.join(sizes)}."


def _no_pair(tried: Mapping) -> str:
    """Why a stage had nothing to train on."""
    why = sum((Counter(kind) for stage in tried["no pair"] for kind in stage.values()), Counter())
    told = ", ".join(f"`{name}` {count}" for name, count in why.most_common())
    return f" After it the stage found no pair in {why.total()} questions: {told}." if told else ""


def _tried(facts: Mapping, studied: settings.Studied) -> list[str]:
    tried = facts["validation"]
    rates = [f"`{rate}` {words.said(rows[studied.main])}" for rate, rows in tried["rates"].items()]
    return [
        f"{_sizes(tried, studied)} Learning rate there, seed {settings.TUNED}, by right answers:"
        f" {'; '.join(rates)}. `{facts['rate']}`, the best of them, was taken, and held-out scenes were read"
        " with it alone.",
        "",
    ]


def here(facts: Mapping | None = None) -> str:
    """What the papers report beside what was found here: the table of docs/recipes.md."""
    facts = read_json(FACTS) if facts is None else facts
    rows = [
        (
            "SPR",
            "LLaVA-1.5-7B and others, DPO",
            "RefCOCO and Flickr30k gains that grow with the IoU threshold",
            "[measured on the embedded world](results.md)",
        )
    ]
    for recipe, paper in settings.PAPERS.items():
        rows.append((paper.title, paper.model, paper.result, _in_short(recipe, facts.get(recipe))))
    lines = ["| | paper's model | paper's result | here |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _in_short(recipe: str, facts: Mapping | None) -> str:
    if facts and "questions" not in facts and facts["validation"]["no pair"]:
        page = f"{settings.PAPERS[recipe].page}#on-the-tiny-world"
        return f"on the tiny world the cold start was too small for any pair ([more]({page}))"
    if not facts or "questions" not in facts:
        return "rewards, tasks and whole runs are tested; no gain is claimed"
    own = facts["questions"][settings.RECIPES[recipe].main]
    rec = facts["own"]["rec"]["Acc@0.5"]
    return (
        f"on the tiny world, right answers from {words.percent(own['a'])} after a cold start to"
        f" {words.percent(own['b'])}: DPO {words.said(own)}; the same answer to all of a kind would have"
        f" {words.percent(facts['blind'][ALL])}; on SPR's referring expressions, IoU 0.5, it"
        f" {words.said(rec)} ([more]({settings.PAPERS[recipe].page}#on-the-tiny-world))"
    )


if __name__ == "__main__":
    write()
