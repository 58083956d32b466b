"""What a run came to, as plain data: pure functions of its records, without pictures and without HTML.

Records are gone through one at a time, so that a run of any size fits; what is kept of them are numbers.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from spr_plugin.pairing import Pairing, PreferencePair, answer_of, make_pair, untrained
from spr_plugin.progress import counted
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.report.charts import Chart, histogram, lines
from spr_plugin.runs.steps import PROBE

Record = Mapping[str, Any]
Values = dict[str, array]  # term → its values, one a text; S is the score
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_REWEIGHED = 5_000  # queries, spread over all of a run, which waits for its report
SHOWN_VALUES = 20  # of a facet
PLACES = {"step", "global_step", "epoch", "time"}  # of a step's record: where it is, not what it said


def candidates_of(scores: Iterable[Record]) -> Iterator[Record]:
    """Each scored candidate of the records of scores."""
    return (row for record in scores for row in record["candidates"])


def sound(pair: PreferencePair, scores: Mapping[str, Record]) -> bool:
    """Whether what a pair was made from is there to be shown: a damaged record is left out."""
    ids = {row["id"] for row in scores[pair.query]["candidates"]} if pair.query in scores else set()
    return {pair.chosen_candidate, pair.rejected_candidate} <= ids


# --- how many, and why no more


def funnel(
    skipped: Mapping[str, int],
    queries: int,
    scores: Iterable[Record],
    pairs: Iterable[Record],
    lengths: Iterable[Record],
    excluded: Set[str] = frozenset(),
) -> list[dict]:
    """``{"name", "count", "left_out": {reason: count}}`` of each stage; what is left out was in the one
    before.

    Args:
        skipped: pictures and queries of the source.
        pairs: records of pairs and of queries without one.
        lengths: of the pairs that train, and perhaps of those that a former one of this run's stages had.
        excluded: ids of pairs that were not to train.
    """
    rows, invalid, unchosen = 0, Counter[str](), Counter[str]()
    for row in candidates_of(scores):
        rows += 1
        if row["reason"]:
            invalid[row["reason"]] += 1
        elif row["not_choosable"]:
            unchosen[row["not_choosable"]] += 1
    reasons = {record["id"]: record.get("skip") for record in pairs}
    made, valid = list(reasons.values()).count(None), rows - invalid.total()
    measured = len({record["pair"] for record in lengths} & reasons.keys() - excluded)
    marked = len(excluded & reasons.keys())
    steps = [
        ("queries", queries, skipped),
        ("candidates", rows, {}),
        ("with a score", valid, counted(invalid.elements())),
        ("may be chosen, repaired", valid - unchosen.total(), counted(unchosen.elements())),
        ("preference pairs", made, counted(filter(None, reasons.values()))),
    ]
    if measured:
        steps.append(("in the DPO stage", measured, untrained(made, measured, marked)))
    return [{"name": name, "count": count, "left_out": dict(why)} for name, count, why in steps]


# --- scores


def scores_by_group(scores: Iterable[Record], pairs: Sequence[PreferencePair]) -> dict[str, Values]:
    """Terms and S of all answers that have a score as they were written and repaired, of the chosen
    (repaired) and of the rejected (written) ones.
    """
    chosen = {pair.chosen_candidate for pair in pairs}
    rejected = {pair.rejected_candidate for pair in pairs}
    groups: dict[str, Values] = {"all candidates": {}, "all, refined": {}, "chosen": {}, "rejected": {}}
    for row in candidates_of(scores):
        written, repaired = _scored(row), _scored(row, "repaired_")
        for group, values, belongs in (
            ("all candidates", written, True),
            ("all, refined", repaired, True),
            ("chosen", repaired, row["id"] in chosen),
            ("rejected", written, row["id"] in rejected),
        ):
            for name, value in values.items() if belongs else ():
                groups[group].setdefault(name, array("d")).append(value)
    return groups


def _scored(row: Record, side: str = "") -> dict[str, float]:
    """Terms and S of a text, or of it repaired; nothing where it has no score."""
    score = row[f"{side}score"]
    return {} if score is None else {**row[f"{side}terms"], "S": score}


def mean_terms(groups: Mapping[str, Values]) -> list[dict]:
    """``{"group", "n", "means": {term: mean}}`` of each group; a plugin's terms need not be there for each
    text.
    """
    return [
        {
            "group": group,
            "n": len(values.get("S", ())),
            "means": {name: f"{sum(column) / len(column):.3f}" for name, column in values.items()},
        }
        for group, values in groups.items()
    ]


def distributions(groups: Mapping[str, Values]) -> list[Chart]:
    """One chart a term, S first: how its values are spread in each group that has it."""
    names = dict.fromkeys(["S", *(name for values in groups.values() for name in values)])
    charts = []
    for name in names:
        columns = {group: values[name] for group, values in groups.items() if name in values}
        if columns:
            charts.append(histogram(name, columns))
    return charts


# --- what another weight would change


def under_lambdas(
    recipe: Recipe[Any],
    pairing: Pairing,
    queries: Mapping[str, Query],
    scores: Mapping[str, Record],
    pairs: Iterable[PreferencePair],
    own: float | None = None,
) -> list[dict]:
    """For each λ, the run's `own` among them, how many of the run's pairs stay, are of other candidates, are
    lost, and are new among so many queries, after every answer was scored again from its terms; empty where
    the recipe has no λ, or no answer has a score.
    """
    made = {pair.query: (pair.chosen_candidate, pair.rejected_candidate) for pair in pairs}
    changes = {lam: Counter[str]() for lam in sorted({*LAMBDAS, *([] if own is None else [own])})}
    weighed = False
    known = [id for id in scores if id in queries]
    for id in known[:: len(known) // MOST_REWEIGHED + 1]:
        record = scores[id]
        weighed = weighed or any(_scored(row) or _scored(row, "repaired_") for row in record["candidates"])
        for lam in changes:
            rows = [_reweighed(row, recipe, lam) for row in record["candidates"]]
            if None in rows:
                return []
            again = make_pair(queries[id], "", [row for row in rows if row is not None], pairing)
            ids = None if isinstance(again, str) else (again.chosen_candidate, again.rejected_candidate)
            changes[lam][_change(made.get(id), ids)] += 1
    names = ("same", "other", "lost", "new")
    return [
        {"lam": lam, "own": lam == own, "queries": counts.total(), **{name: counts[name] for name in names}}
        for lam, counts in changes.items()
        if weighed
    ]


def _reweighed(row: Record, recipe: Recipe[Any], lam: float) -> Record | None:
    """The candidate's row with another λ; None where the recipe cannot tell."""
    answer = answer_of(row)
    score, repaired = answer.score, answer.repaired_score
    if score is not None and (score := recipe.reweighed(answer.terms, lam)) is None:
        return None
    if repaired is not None and (repaired := recipe.reweighed(answer.repaired_terms, lam)) is None:
        return None
    return {"id": row["id"], **vars(replace(answer, score=score, repaired_score=repaired))}


def _change(was: tuple[str, str] | None, now: tuple[str, str] | None) -> str:
    if was is None or now is None:
        return "lost" if was else "new" if now else "none"
    return "same" if was == now else "other"


# --- what the queries are about


def facets(
    recipe: Recipe[Any], queries: Mapping[str, Query], pairs: Iterable[PreferencePair]
) -> dict[str, dict]:
    """Facet → ``{"rows": [{"value", "queries", "pairs", "gap"}], "others": how many values are not shown}``;
    the gap is the pairs' mean, None without one. A query counts once for each value that it has.
    """
    gaps = {pair.query: pair.chosen_score - pair.rejected_score for pair in pairs}
    asked: dict[str, Counter[str]] = {}
    of_pairs: dict[str, dict[str, list[float]]] = {}
    for id, query in queries.items():
        for facet, values in recipe.facets(query).items():
            asked.setdefault(facet, Counter()).update(set(values))
            for value in set(values) if id in gaps else ():
                of_pairs.setdefault(facet, {}).setdefault(value, []).append(gaps[id])
    shown = {}
    for facet, counts in asked.items():
        # Most frequent first, of equals by name.
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        mine = of_pairs.get(facet, {})
        rows = [
            {
                "value": value,
                "queries": count,
                "pairs": len(mine.get(value, ())),
                "gap": sum(mine[value]) / len(mine[value]) if value in mine else None,
            }
            for value, count in ranked[:SHOWN_VALUES]
        ]
        shown[facet] = {"rows": rows, "others": len(ranked) - len(rows)}
    return shown


# --- the DPO stage


def curves(steps: Sequence[Record]) -> list[Chart]:
    """A chart for each thing that the steps and the looks at held-out regions said; chosen and rejected
    share one.
    """
    charts: dict[str, dict[str, list]] = {}
    for record in steps:
        for name, value in record.items():
            if name not in PLACES and isinstance(value, (int, float)):
                title, series = _curve_of(name)
                charts.setdefault(title, {}).setdefault(series, []).append((record["step"], value))
    ordered = sorted(charts.items(), key=lambda item: item[0].startswith(PROBE))
    return [lines(title, series) for title, series in ordered]


def _curve_of(name: str) -> tuple[str, str]:
    """The chart of a value, and its line there."""
    for side in ("chosen", "rejected"):
        if side in name:
            return name.replace(side, "…"), side
    return name, name
