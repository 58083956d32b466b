"""What a run of make.py taught, as figures: intervals, which run is the best, and README's table.

python examples/tiny_world/quality.py     writes README's table anew from quality.json
"""

import json
from pathlib import Path

from spr_plugin.eval_tasks.metrics import THRESHOLDS, intervals

FILE = "quality.json"
MARKS = ("<!-- quality -->", "<!-- /quality -->")
# Row of README's table → figures of quality.json, one a column; with one figure the others stay empty.
ROWS = {
    "expressions, all": [f"REC all {t}" for t in THRESHOLDS],
    "of objects that only left, right, small or large tells apart": [
        f"REC qualified {t}" for t in THRESHOLDS
    ],
    "colour and shape alone": [f"REC plain {t}" for t in THRESHOLDS],
    "the smallest third of the objects": ["REC smallest third 0.5"],
    "a region's objects that are named with a box": ["recall"],
}
SHARES = {
    "named": "of a region's objects are named",
    "precision": "of what is named is there, and no more often than there",
    "presence": "of yes/no questions answered rightly",
    "color": "of colours",
    "region's name": "of names of a box",
}


def with_interval(items):
    """[(value, scene)] → {value, low, high, n}: a 95 % bootstrap interval in which whole scenes are drawn."""
    values, clusters = zip(*items)
    (row,) = intervals({"": (values, [1.0] * len(values))}, clusters)
    return {key: round(row[key], 4) for key in ("value", "low", "high", "n")}


def misses(run):
    """What keeps a run from being embedded, by its figures on `val`: SPR is shown on a model that knows more
    than it says, and that can lose what is asked of it.
    """
    figures = {name: figure["value"] for name, figure in run["llava"]["val"].items()}
    gap = run["before coarse"]["val"]["REC all 0.9"]["value"] - figures["REC all 0.9"]
    bounds = {
        "REC at 0.5 between 55 and 88 %": 0.55 <= figures["REC all 0.5"] <= 0.88,
        "REC at 0.9 at most 45 %": figures["REC all 0.9"] <= 0.45,
        "12 points more at 0.9 before the coarse stage": gap >= 0.12,
        "the smallest third at 0.5 at least 45 %": figures["REC smallest third 0.5"] >= 0.45,
        "presence above 80 %": figures["presence"] > 0.80,
        # One that repeats itself makes few pairs.
        "half of what is named is there": figures["precision"] >= 0.50,
    }
    return [name for name, met in bounds.items() if not met]


def rank(run):
    """What the best run has most of: of those that miss least, the mean on `val` of these figures."""
    names = ("REC all 0.5", "recall", "precision", "presence")
    return -len(misses(run)), sum(run["llava"]["val"][name]["value"] for name in names)


def table(found):
    """README's part on the weights: the embedded run, then all runs; everything on `test` scenes."""
    embedded = next(run for run in found["runs"] if run["seed"] == found["embedded"])
    return "\n\n".join(
        [by_threshold(embedded), in_words(embedded), all_runs(found["runs"], found["embedded"])]
    )


def by_threshold(run):
    figures, before = run["llava"]["test"], run["before coarse"]["test"]
    rows = [(title, [figures[name] for name in names]) for title, names in ROWS.items()]
    exact = [before[name] for name in ROWS["expressions, all"]]
    rows.insert(1, ("the same before the last stage, on exact boxes", exact))
    return markdown(
        ["IoU", *map(str, THRESHOLDS)],
        [[title, *map(shown, cells), *[""] * (len(THRESHOLDS) - len(cells))] for title, cells in rows],
    )


def in_words(run):
    figures, clip, detector = (run[model]["test"] for model in ("llava", "clip", "detector"))
    shares = "; ".join(f"{shown(figures[name])} {text}" for name, text in SHARES.items())
    return f"""Besides: {shares}.

CLIP, retrieval among 100 of {clip["to_text"]["n"]} scenes: {shown(clip["to_text"])} % picture to text,
{shown(clip["to_picture"])} % text to picture; it prefers the right text to one with a wrong colour in
{shown(clip["wrong_color"])} %.

Detector: finds {shown(detector["found"])} % of {detector["found"]["n"]} objects by name (IoU ≥ 0.5);
{shown(detector["right"])} % of what it reports is one of them."""


def all_runs(runs, embedded):
    names = ("REC all 0.5", "REC all 0.9", "REC smallest third 0.5", "recall", "presence")
    lines = []
    for run in runs:
        values = [percent(run["llava"]["test"][name]["value"]) for name in names]
        values.insert(2, percent(run["before coarse"]["test"]["REC all 0.9"]["value"]))
        title = f"seed {run['seed']}" + (", embedded" if run["seed"] == embedded else "")
        minutes = round(sum(run["seconds"].values()) / 60)
        lines.append([title, *values, str(minutes), "; ".join(misses(run)) or "nothing"])
    titles = (
        "run, REC 0.5, 0.9, 0.9 before, smallest third, named with a box, presence, minutes, misses on `val`"
    )
    return markdown(titles.split(", "), lines)


def markdown(titles, rows):
    lines = [titles, ["---", *["--:"] * (len(titles) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value):
    return f"{100 * value:.1f}"


def shown(figure):
    return f"{percent(figure['value'])} ({percent(figure['low'])}–{percent(figure['high'])})"


def write_table(folder):
    """Puts the table of `folder`/quality.json between the marks of `folder`/README.md."""
    readme = folder / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    text = table(json.loads((folder / FILE).read_text()))
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(__file__).resolve().parent)
