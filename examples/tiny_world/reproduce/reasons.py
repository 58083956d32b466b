"""Tables of what lies behind the gains: what moves, what DPO was given, what analysis.py found."""

from collections.abc import Mapping, Sequence

import plan
from spr_plugin.eval_tasks import metrics
from words import interval, percent, points

EVIDENCE = {
    "scores": "Rank correlation of scores with the worth of an answer",
    "pairs": "Pairs against the truth",
    "log_probs": "Log-prob of a token, nats",
}


def moves(shares: Sequence[Sequence[float]]) -> list[str]:
    if not shares:
        return []
    names = ["below 0.5", *map(str, metrics.THRESHOLDS[:-1]), f"{metrics.THRESHOLDS[-1]} and more"]
    lines = [
        "## Which expressions move",
        "",
        "Percent of all; rows: IoU of the base from …, columns: with SPR.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    rows = (f"| {name} | " + " | ".join(map(percent, row)) + " |" for name, row in zip(names, shares))
    return [*lines, *rows, ""]


def stages(stages: Mapping[str, Mapping]) -> list[str]:
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
    for name, stage in stages.items():
        for place, (group, means) in enumerate(stage["terms"].items()):
            link = ", ".join(map(str, stage["correlation"].values())) if place == 0 else ""
            front = f"{name} | {stage['pairs']}" if place == 0 else " | "
            shown = " | ".join(means.get(term, "") for term in terms)
            lines.append(f"| {front} | {group} | {shown} | {link} |")
    return [*lines, ""] if len(lines) > 4 else []


def why(why: Mapping) -> list[str]:
    """What analysis.py found, a column a seed."""
    if not why["seeds"]:
        return []
    gaps = ", ".join(str(seed) for seed in plan.VARIANTS[plan.MAIN].seeds if seed not in why["seeds"])
    lines = [
        "## Why",
        "",
        f"Seeds that were looked into: {', '.join(map(str, why['seeds']))}{gaps and '; missing: '}{gaps}.",
        "",
        *_parts(why["parts"], why["seeds"]),
    ]
    for kind, title in EVIDENCE.items():
        cells = {
            figure: [
                f"{by[str(seed)]['value']:.3f} ({by[str(seed)]['low']:.3f} … {by[str(seed)]['high']:.3f})"
                if str(seed) in by
                else ""
                for seed in why["seeds"]
            ]
            for figure, by in why[kind].items()
        }
        lines += _by_seed(title, why["seeds"], cells)
    return lines


def _parts(parts: Mapping[str, Mapping], seeds: Sequence[int]) -> list[str]:
    """Won and lost by part and threshold, summed over the seeds that are there, and each seed's gain at the
    highest threshold.
    """
    lines = [
        "Expressions won and lost, by IoU, these seeds together:",
        "",
        "| | n | " + " | ".join(map(str, metrics.THRESHOLDS)) + " |",
        "|---|--:|" + "--:|" * len(metrics.THRESHOLDS),
    ]
    for part, rows in parts.items():
        cells = " | ".join(f"+{rows[name]['won']} −{rows[name]['lost']}" for name in metrics.ACCURACIES)
        lines.append(f"| {part} | {rows[metrics.ACCURACIES[0]]['n']} | {cells} |")
    last = {
        part: [f"{points(one['gain'])} ({interval(one)})" for one in rows[metrics.ACCURACIES[-1]]["gains"]]
        for part, rows in parts.items()
    }
    return [*lines, "", *_by_seed("Gain at IoU 0.9, points", seeds, last)]


def _by_seed(title: str, seeds: Sequence[int], cells: Mapping[str, Sequence[str]]) -> list[str]:
    """A row a figure, a column a seed."""
    lines = [
        f"| {title} | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|---|" + ":-:|" * len(seeds),
    ]
    return [*lines, *(f"| {figure} | " + " | ".join(row) + " |" for figure, row in cells.items()), ""]
