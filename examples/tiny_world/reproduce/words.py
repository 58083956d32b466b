"""How a figure is said: numbers as the docs print them, and the word that follows from an interval."""

from collections.abc import Mapping, Sequence

from paired import Row, sign

# Of figures of which less is better no word says which way is good.
MOVES = ("rises", "falls", "shows no difference")
WORDS = {1: "gains", -1: "loses", 0: "no difference seen", None: "seeds disagree"}
GAINS = ("gains", "loses", "shows no difference")
GROWS = ("grows by", "shrinks by", "is the same as far as can be seen")


def word(row: Row | None) -> str:
    """What a table calls a row."""
    if row is None:
        return "not measured"
    which = sign(row)
    return MOVES[which < 0] if which and row.get("failure") else WORDS[which]


def said(row: Row | None, verbs: Sequence[str] = GAINS) -> str:
    """A row as the end of a sentence about what changed: "loses 6.1 points (-7.8 … -4.3)"."""
    if row is None:
        return "was not measured"
    if row["apart"]:
        return f"ends at {by_seed(row)} by seed, from {percent(row['a'])}: too far apart for a mean"
    which = sign(row)
    up, down, neither = MOVES if row.get("failure") else verbs
    if which == 0:
        return f"{neither} ({points(row['gain'])}, {interval(row)})"
    return f"{up if which == 1 else down} {100 * abs(row['gain']):.1f} points ({interval(row)})"


def asked(target: Mapping) -> str:
    """What a target of targets.py asks, behind its rule."""
    return f"(p ≤ {target['asked']})" if "p" in target else points(target["asked"])


def reached(target: Mapping) -> str:
    """What was found of a target."""
    if target["met"] is None:
        return ""
    if "p" not in target:
        return f"{points(target['gain'])} ({interval(target)})"
    tasks = (f"{side} on {listed(target[side] or ['none'])}" for side in ("above", "below"))
    return f"{', '.join(tasks)} (p {', '.join(f'{task} {p:.4f}' for task, p in target['p'].items())})"


def met(target: Mapping) -> str:
    """What a table calls a target."""
    return {True: "met", False: "not met", None: "not measured"}[target["met"]]


def number(value: float) -> str:
    """Two decimals; a half goes up, also where a float holds a little less."""
    return f"{value + 1e-9:.2f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def interval(row: Mapping) -> str:
    return f"{points(row['low'])} … {points(row['high'])}"


def by_seed(row: Row) -> str:
    """The value after of each seed, percent."""
    return listed([percent(value) for value in row["by_seed"]])


def values(figure: Mapping[str, Mapping] | None, form: str = ".2f") -> str:
    """What analysis.py found of one figure, seed by seed."""
    return listed([format(one["value"], form) for one in figure.values()]) if figure else "not measured"


def numbers(values: Sequence[float]) -> str:
    return listed([number(value) for value in values])


def listed(words: Sequence[object]) -> str:
    """ "a, b and c"."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last
