"""Which rows a list shows, and in which order: pure functions of rows and of what an address asks for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar
from urllib.parse import urlencode

from spr_plugin.progress import counted
from spr_plugin.tools.inspect.rows import STATES, Row

PAGE = 50  # rows
MOST_NAMES = 200  # categories that a list suggests: there may be as many as objects
# How a list is sorted: name → (words, key of a row, whether the highest is first). None comes last anyway.
ORDERS: Mapping[str, tuple[str, Callable[[Row], float | None], bool]] = {
    "": ("as in the logs", lambda row: 0.0, False),
    "widest": ("widest gap first", lambda row: row.gap, True),
    "narrowest": ("narrowest gap first", lambda row: row.gap, False),
    "highest": ("highest score first", lambda row: row.score, True),
    "lowest": ("lowest score first", lambda row: row.score, False),
}


@dataclass(frozen=True)
class Wanted:
    """What an address asks for; "" is everything. `low` and `high` are of `Row.score`, `text` of the logs."""

    state: str = ""
    reason: str = ""
    category: str = ""
    size: str = ""
    recipe: str = ""
    round: str = ""
    low: str = ""
    high: str = ""
    marked: str = ""
    text: str = ""
    sort: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Wanted:
        """Of an address's fields; one that is not known is not looked at."""
        return cls(**{f.name: asked.get(f.name, "").strip() for f in fields(cls)})

    @classmethod
    def strange(cls, asked: Mapping[str, str]) -> list[str]:
        """What of an address's fields the list does not follow, a sentence each."""
        known = {"page", *(f.name for f in fields(cls))}
        lines = [
            f"{name}: no filter has this name; it is not looked at." for name in asked if name not in known
        ]
        for name, words in (("low", "score from"), ("high", "score to"), ("page", "page")):
            given = asked.get(name, "").strip()
            if given and number(given, None) is None:
                lines.append(f"{words}: {given} is no number; it is not looked at.")
        if (sort := asked.get("sort", "").strip()) not in ORDERS:
            names = ", ".join(filter(None, ORDERS))
            lines.append(f"sort: {sort} is no order, as {names} are; the list is as in the logs.")
        return lines

    @property
    def address(self) -> str:
        """The same as the query of an address, "" or with its "?"."""
        words = urlencode({name: value for name, value in vars(self).items() if value}, errors="replace")
        return f"?{words}" if words else ""


def chosen(
    rows: Iterable[Row],
    wanted: Wanted,
    marked: Collection[str] = (),
    with_text: Collection[str] | None = None,
    named: frozenset[str] | None = None,
) -> list[Row]:
    """The rows that are wanted, in the order that is wanted.

    Args:
        marked: ids of marked pairs.
        with_text: ids of the queries in which the text that is searched for stands; None where none is.
        named: the categories that are wanted (:func:`categories_like`); None where all are.
    """
    low, high = number(wanted.low, -math.inf), number(wanted.high, math.inf)
    bounded = low > -math.inf or high < math.inf

    def fits(row: Row) -> bool:
        return (
            (with_text is None or row.id in with_text)
            and (not wanted.state or row.state == wanted.state)
            and (not wanted.reason or wanted.reason in row.reasons)
            and (named is None or not named.isdisjoint(row.categories))
            and (not wanted.size or wanted.size in row.sizes)
            and (not wanted.recipe or row.recipe == wanted.recipe)
            and (not wanted.round or str(row.round) == wanted.round)
            and (not wanted.marked or row.pair in marked)
            and (not bounded or (row.score is not None and low <= row.score <= high))
        )

    _, key, reverse = ORDERS.get(wanted.sort, ORDERS[""])
    sign = -1 if reverse else 1

    def sort_key(row: Row) -> tuple[float, int, str]:
        value = key(row)
        # None comes last, whichever way the rows are sorted.
        return (math.inf if value is None else sign * value), row.round, row.id

    return sorted(filter(fits, rows), key=sort_key)


def categories_like(words: str, known: Collection[str]) -> frozenset[str] | None:
    """The category of this name, or where none has it, all whose names hold the words; None for no words."""
    if not words or words in known:
        return frozenset([words]) if words else None
    return frozenset(name for name in known if words.casefold() in name.casefold())


T = TypeVar("T", float, None)


def number(text: str, otherwise: T) -> float | T:
    """The number that somebody typed, or what holds where it is none."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def page_of(rows: Sequence[Row], asked: str) -> tuple[int, int, Sequence[Row]]:
    """(number from 1, how many there are, rows) of the page that is asked for, or of the nearest one."""
    # Rounded up: // rounds towards minus infinity.
    pages = max(1, -(-len(rows) // PAGE))
    page = min(max(1, int(number(asked, 1))), pages)
    return page, pages, rows[(page - 1) * PAGE : page * PAGE]


def around(rows: Sequence[Row], id: str) -> tuple[int, Row | None, Row | None]:
    """(position from 1, the row before, the one behind) of a query's row; 0 where it is not among them."""
    index = next((index for index, row in enumerate(rows) if row.id == id), None)
    if index is None:
        return 0, None, (rows[0] if rows else None)
    return (index + 1, rows[index - 1] if index else None, rows[index + 1] if index + 1 < len(rows) else None)


def facets(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Filter → its values with the number of rows that have each."""
    seen: dict[str, Counter[str]] = {
        name: Counter() for name in "state reason category size recipe round".split()
    }
    for row in rows:
        seen["state"][row.state] += 1
        seen["reason"].update(row.reasons)
        seen["category"].update(row.categories)
        seen["size"].update(row.sizes)
        seen["recipe"][row.recipe] += 1
        seen["round"][str(row.round)] += 1
    ordered = {name: counted(counts.elements()) for name, counts in seen.items()}
    return ordered | {
        "state": {value: ordered["state"][value] for value in STATES if value in ordered["state"]}
    }
