"""A comparison as Markdown and as a page of HTML."""

import json
from collections.abc import Mapping
from pathlib import Path

from spr_plugin.data.pictures import BadImage, open_image
from spr_plugin.drawing import rectangle
from spr_plugin.eval_tasks import metrics
from spr_plugin.eval_tasks.compare import ALL, compared
from spr_plugin.eval_tasks.saved_results import read_run
from spr_plugin.files import write_text
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.report.charts import gains
from spr_plugin.report.examples import clipped, data_uri
from spr_plugin.report.rendering import template

LONGEST = 300  # characters of each text of a flip: it is to be printed on one page, in a narrow column
COLOURS = {"truth": "#1f77ff", "A": "#e5484d", "B": "#12a150"}


def compare(a: str, b: str, out: str | None = None) -> dict:
    """Compare two result folders, and write ``compare.md``, ``.json`` and ``.html`` to `out` (default: B's
    folder).

    Returns what the JSON holds. Raises UserError where a folder has no samples of ours, or both differ in
    tasks or samples.
    """
    if out is not None:
        refuse_unwritable({"--out": str(out)}, folders=True)
    runs = read_run(a), read_run(b)
    comparison = compared(*runs)
    folder = Path(out or b)
    write_text(folder / "compare.json", json.dumps(comparison, indent=2) + "\n")
    write_text(folder / "compare.md", markdown(comparison))
    write_text(folder / "compare.html", html(comparison))
    return comparison


def markdown(comparison: Mapping) -> str:
    """The comparison as Markdown, in percent."""
    lines = []
    for side in ("a", "b"):
        lines += [
            f"{side.upper()}: `{comparison[side]}`, read from",
            *(f"- `{file}`" for file in comparison["files"][side]),
            "",
        ]
    for task, part in comparison["tasks"].items():
        lines += [
            f"## {task}",
            "",
            "| figure | A | B | gain | 95 % interval | McNemar p | n |",
            "|---|--:|--:|--:|:-:|--:|--:|",
        ]
        for row in part["rows"]:
            a, b, gain, low, high = (100 * row[key] for key in ("a", "b", "gain", "low", "high"))
            p = "" if row["p"] is None else f"{row['p']:.2g}"
            lines.append(
                f"| {row['figure']} | {a:.2f} | {b:.2f} | {gain:+.2f} | {low:+.2f} … {high:+.2f} | {p} |"
                f" {row['n']} |"
            )
        lines.append("")
        if part["signature"]:
            lines += [f"Signature: {part['signature']['line']}.", ""]
        if part["flips"]:
            lines += [
                (
                    f"At IoU {part['flips']['threshold']}, {part['flips']['won']} became right and"
                    f" {part['flips']['lost']} wrong."
                ),
                "",
            ]
    return "\n".join(lines)


def html(comparison: Mapping) -> str:
    """The comparison as one self-contained page: tables, the gain at every threshold as a plot, flipped
    samples with what was asked, both answers and their boxes.
    """
    flips = {
        task: [(_clipped(flip), _picture(flip)) for flip in part["flips"]["shown"]]
        for task, part in comparison["tasks"].items()
        if part["flips"] and task != ALL
    }
    return template("compare.html").render(
        comparison=comparison, charts=charts(comparison), flips=flips, colours=COLOURS
    )


def charts(comparison: Mapping) -> dict:
    """Task → the gain at every threshold as a chart, of those that have one."""
    return {
        task: gains([row for row in part["rows"] if row["figure"] in metrics.ACCURACIES])
        for task, part in comparison["tasks"].items()
        if part["signature"]
    }


def _clipped(flip: Mapping) -> dict:
    """The flip with as much of its texts as a page shows."""
    names = ("phrase", "question", "answer_a", "answer_b")
    texts = {name: flip[name] for name in names if flip[name] is not None}
    return {**flip, **{name: clipped(text, LONGEST) for name, text in texts.items()}}


def _picture(flip: Mapping) -> dict:
    """The picture, its size, and truth, A's and B's box on it; no picture where it has no path or is gone."""
    try:
        image = open_image(flip["picture"], flip["id"]) if flip["picture"] else None
    except BadImage as error:
        return {"uri": None, "why": f"not shown: {flip['picture']}: {error.why}"}
    if image is None:
        return {"uri": None, "why": None}
    named = (("A", "a"), ("B", "b"), ("truth", "truth"))  # the broadest first
    marks = [rectangle(name, flip[key]) for name, key in named if flip[key]]
    return {"uri": data_uri(image), "why": None, "size": image.size, "marks": marks}
