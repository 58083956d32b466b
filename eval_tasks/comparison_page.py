"""A comparison as Markdown and as a page of HTML."""

from collections.abc import Mapping, Sequence

from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics

ALL = "all box tasks"  # the row over every task whose items are boxes
COLOURS = {"truth": "#1f77ff", "A": "#e5484d", "B": "#12a150"}


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
    samples with their boxes.
    """
    from spr_plugin.report.page import template

    plots = {
        task: plot([row for row in part["rows"] if row["figure"] in metrics.ACCURACIES])
        for task, part in comparison["tasks"].items()
        if part["signature"]
    }
    pictures = {
        task: [_picture(flip) for flip in part["flips"]["shown"]]
        for task, part in comparison["tasks"].items()
        if part["flips"] and task != ALL
    }
    return template("compare.html").render(
        comparison=comparison, plots=plots, pictures=pictures, colours=COLOURS
    )


def _picture(flip: Mapping) -> str | None:
    """Truth, A's and B's box on the picture as a data URI; None where it has no path or is gone."""
    from spr_plugin.report.page import data_uri

    try:
        image = open_image(flip["picture"], flip["id"]) if flip["picture"] else None
    except UserError:
        image = None
    boxes = [
        (COLOURS[name], flip[key], 2)
        for name, key in (("truth", "truth"), ("A", "a"), ("B", "b"))
        if flip[key]
    ]
    return data_uri(image, boxes) if image else None


def plot(rows: Sequence[Mapping]) -> str:
    """The gain of every row (five at most) with its interval, in points, as SVG."""
    top = max(0.1, max(abs(100 * row[key]) for row in rows for key in ("low", "high"))) * 1.1

    def y(value: float) -> float:
        return 110 - 100 * (100 * value) / top

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 240" width="420"'
        ' height="240" font-family="sans-serif" font-size="11">',
        '<line x1="50" y1="110" x2="410" y2="110" stroke="#999"/>',
    ]
    ticks = (top / 1.1, -top / 1.1)
    parts += [
        f'<text x="45" y="{y(value / 100) + 4:.1f}" text-anchor="end">{value:+.1f}</text>' for value in ticks
    ]
    for index, row in enumerate(rows):
        x = 80 + 75 * index
        parts.append(
            f'<line x1="{x}" y1="{y(row["low"]):.1f}" x2="{x}" y2="{y(row["high"]):.1f}"'
            f' stroke="{COLOURS["B"]}" stroke-width="2"/>'
        )
        parts.append(
            f'<circle cx="{x}" cy="{y(row["gain"]):.1f}" r="4"'
            f' fill="{COLOURS["B"]}"><title>{100 * row["gain"]:+.2f}</title></circle>'
        )
        parts.append(f'<text x="{x}" y="234" text-anchor="middle">{row["figure"]}</text>')
    return "".join(parts) + "</svg>"
