"""What was asked of the default (plan.MAIN) before it was measured, and whether it is met.

A target of the docs is ``{"asked", "gain", "low", "high", "met"}``: what was asked, the gain with its
interval, all as shares, and whether the one is met by the other. Where it was not measured all but ``asked``
is None.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# "pairs" of run.py's evidence: of these chosen answers hold a name without a box.
BARE = "pairs with a bare name"
MARGIN, WIDE = 0.015, 0.03
# Task → the figure that speaks for it, and the level at which the five together are tested.
HEADLINES = {
    "rec": "Acc@0.9",
    "phrases": "Acc@0.5",
    "description": "mIoU",
    "presence": "accuracy",
    "color": "accuracy",
}
LEVEL = 0.05
OVER_SFT = "dpo_over_sft"


def at_least(target: "Target", row: Mapping) -> bool:
    return row["gain"] >= target.asked and target.is_near(row)


def above(target: "Target", row: Mapping) -> bool:
    return row["gain"] > target.asked and target.is_near(row)


def not_under(target: "Target", row: Mapping) -> bool:
    """The interval does not lie wholly under what was asked."""
    return row["high"] >= target.asked


def at_most(target: "Target", row: Mapping) -> bool:
    return row["gain"] <= target.asked


@dataclass(frozen=True)
class Target:
    """One thing that was asked.

    Attributes:
        title: what the docs call it.
        place: where its row lies in the findings.
        asked: the gain.
        margin: the interval's lower end may lie less than this under it.
        met: whether a row meets it.
    """

    title: str
    place: tuple[str, ...]
    asked: float
    margin: float = MARGIN
    met: Callable[["Target", Mapping], bool] = at_least

    def is_near(self, row: Mapping) -> bool:
        """Whether the interval does not reach far below what was asked."""
        return row["low"] > self.asked - self.margin

    def missing(self, row: Mapping) -> float:
        """How far a row's gain is from what was asked, in margins."""
        short = self.asked - row["gain"]
        return max(0.0, -short if self.met is at_most else short) / self.margin

    def of(self, row: Mapping | None) -> dict:
        """This target in the docs."""
        if row is None:
            return unmeasured(self.asked)
        found = {name: row[name] for name in ("gain", "low", "high")}
        return {"asked": self.asked, **found, "met": bool(self.met(self, row))}


def _of_main(title: str, task: str, figure: str, *asked: float, **rule) -> Target:
    return Target(title, ("main", task, figure), *asked, **rule)


def _of_round(threshold: float, **rule) -> Target:
    place = ("against_main", "2 rounds", "rec", f"Acc@{threshold}")
    return Target(f"a second round over the first, IoU {threshold}", place, 0.0, **rule)


# Figures of these objects alone.
SMALLEST, LARGEST = " of the smallest third", " of the largest third"
TARGETS = {
    "rec_0.9": _of_main("referring expressions, IoU 0.9", "rec", "Acc@0.9", 0.08),
    "rec_0.5": _of_main("referring expressions, IoU 0.5", "rec", "Acc@0.5", 0.01),
    "rec_0.5_small": _of_main(
        "the smallest third of the objects, IoU 0.5", "rec", f"Acc@0.5{SMALLEST}", -0.01, WIDE
    ),
    "description_recall": _of_main("descriptions, recall", "description", "recall", 0.0),
    "description_miou": _of_main("descriptions, mean IoU over all objects", "description", "mIoU", 0.01),
    "description_precision": _of_main("descriptions, precision", "description", "precision", 0.05, WIDE),
    "phrases_0.5": _of_main("phrase grounding, IoU 0.5", "phrases", "Acc@0.5", 0.0),
    "color": _of_main("questions on colour, accuracy", "color", "accuracy", 0.0, met=not_under),
    "presence": _of_main("questions on presence, accuracy", "presence", "accuracy", 0.0, met=not_under),
    "round2_0.9": _of_round(0.9, met=above),
    "round2_0.5": _of_round(0.5),
    "bare_names": Target("chosen answers that hold a name without a box", ("bare_names",), 0.0, met=at_most),
}
TITLES = {name: target.title for name, target in TARGETS.items()} | {OVER_SFT: "DPO over SFT on the chosen"}
RULES = {at_least: "at least", above: "above", not_under: "interval not under", at_most: "at most"}
ASKED = {name: RULES[target.met] for name, target in TARGETS.items()}
ASKED[OVER_SFT] = "above on a task, below on none"


def judged(facts: Mapping) -> dict[str, dict]:
    """Name → target of what was found (:func:`figures.findings`)."""
    found = {name: target.of(row_of(facts, *target.place)) for name, target in TARGETS.items()}
    against = row_of(facts, "against_main", "SFT on chosen") or {}
    return {**found, OVER_SFT: over_sft({task: row_of(against, task, HEADLINES[task]) for task in HEADLINES})}


def row_of(facts: Mapping, *path: str) -> Mapping | None:
    """What lies there in the findings; None where it was not measured."""
    for name in path:
        facts = facts.get(name) or {}
    return facts or None


def unmeasured(asked: float) -> dict:
    return {"asked": asked, "gain": None, "low": None, "high": None, "met": None}


# --- one question of five tasks


def over_sft(rows: Mapping[str, Mapping | None]) -> dict:
    """Whether DPO is above SFT on the same chosen answers on one task and below on none, beyond chance.

    A target without gain, of the level asked, with the tasks' adjusted ``p`` and on which DPO is ``above``
    and ``below``.

    Args:
        rows: task → row of SFT against DPO; None where it was not measured.
    """
    if None in rows.values():
        return {**unmeasured(LEVEL), "p": {}, "above": [], "below": []}
    adjusted = holm({task: row["p"] for task, row in rows.items()})
    beyond = [task for task, p in adjusted.items() if p <= LEVEL]
    above_it = [task for task in beyond if rows[task]["gain"] < 0]
    below_it = [task for task in beyond if rows[task]["gain"] > 0]
    met = bool(above_it) and not below_it
    return {**unmeasured(LEVEL), "met": met, "p": adjusted, "above": above_it, "below": below_it}


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for their number by Holm's step-down (Scand. J. Stat. 6, 1979): the k-th smallest of
    m times m - k + 1, no less than the one before and no more than 1.
    """
    adjusted, least = {}, 0.0
    for place, name in enumerate(sorted(values, key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - place) * values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in values}


# --- chosen answers


def bare_names(units: Mapping[int, Mapping]) -> dict | None:
    """Share of the pairs whose chosen answer holds a name without a box, over the seeds of one variant, with
    that of the lowest and of the highest seed; None where it was not counted.
    """
    stages = [unit.get("stage", {}) for _, unit in sorted(units.items())]
    if not stages or not all(BARE in stage and stage["counts"]["preference pairs"] for stage in stages):
        return None
    counts = [(stage[BARE], stage["counts"]["preference pairs"]) for stage in stages]
    by_seed = [bare / pairs for bare, pairs in counts]
    share = sum(bare for bare, _ in counts) / sum(pairs for _, pairs in counts)
    return {"gain": share, "low": min(by_seed), "high": max(by_seed), "by_seed": by_seed}
