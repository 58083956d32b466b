"""A run as tables: what its folder tells, for pandas."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from spr_plugin.errors import UserError
from spr_plugin.notebook.pages import Html, fragment
from spr_plugin.report import figures
from spr_plugin.report.examples import Pictures, Shown, some_pairs
from spr_plugin.runs import SavedRun
from spr_plugin.runs.reading import strange_errors

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
SHOWN = 3  # pairs of a run that a notebook shows by itself
ANSWER = ("text", "score", "reason", "repaired", "repaired_score", "not_choosable", "not_rejectable")


class LoadedRun:
    """A run for a notebook, of several rounds the first one; what is not there yet is empty.

    Attributes:
        saved: the run as :func:`spr_plugin.runs.open` gives it.
    """

    def __init__(self, saved: SavedRun):
        self.saved = saved

    def __repr__(self) -> str:
        later = len(self.rounds)
        more = f", the first of {later + 1} rounds; the others are in .rounds" if later else ""
        return f"<run {self.saved.folder}, {self.saved.state}{more}>"

    @property
    def state(self) -> str:
        """empty, stopped, running, failed or finished."""
        return self.saved.state

    @functools.cached_property
    def rounds(self) -> list[LoadedRun]:
        """The later rounds that were begun, each a run like this."""
        return [LoadedRun(later) for later in self.saved.rounds]

    @functools.cached_property
    def pairs(self) -> pandas.DataFrame:
        """A row a preference pair, by its id, with the gap between its scores."""
        rows = [
            {**vars(pair), "pictures": list(pair.pictures), "gap": pair.chosen_score - pair.rejected_score}
            for pair in self.saved.pairs
        ]
        return frame(rows, "id query prompt pictures chosen rejected chosen_score rejected_score gap".split())

    @functools.cached_property
    def candidates(self) -> pandas.DataFrame:
        """A row an answer, by its id: what drew it, its text and the repaired one, both with their scores and
        terms as far as they are judged.
        """
        with strange_errors(self.saved.folder.path):
            return frame(self._candidates(), ["id", "query", "kind", "index", *ANSWER])

    def _candidates(self) -> Iterator[Row]:
        drawn = self.saved.records("candidates")
        judged = {
            row["id"]: {"query": id, **_judged(row)}
            for id, record in self.saved.records("scores").items()
            for row in record["candidates"]
        }
        for id in sorted({*drawn, *judged}):
            how = drawn[id] if id in drawn else {}
            asked: Row = {name: how[name] for name in ("query", "kind", "index", "text") if name in how}
            yield {"id": id, **asked, **judged.get(id, {})}

    def show(self, *ids: str) -> Html:
        """These pairs with both of their sides on their pictures; without ids some of the run's. UserError
        names what is no pair.
        """
        pairs = {pair.id: pair for pair in self.saved.pairs}
        if missing := [id for id in ids if not isinstance(id, str) or id not in pairs]:
            raise UserError(f"{self.saved.folder}: has no pair {missing[0]}")
        named = [("", pairs[id]) for id in ids] or some_pairs(
            list(pairs.values()), self.saved.flags.spr_seed
        )[:SHOWN]
        scores, queries = self.saved.records("scores"), self.saved.queries
        shown = Shown(self.saved.recipe, Pictures())
        with strange_errors(self.saved.folder.path):
            there = [(why, one) for why, one in named if one.query in queries and figures.sound(one, scores)]
            examples = [shown.pair(why, one, queries[one.query], scores[one.query]) for why, one in there]
        counts = {"queries": len(queries), "preference pairs": len(pairs)}
        return fragment(examples, title=None if ids else repr(self), counts=None if ids else counts)

    def _repr_html_(self) -> str:
        return self.show()


def _judged(row: Row) -> Row:
    """An answer's columns: its texts and scores, and its terms, of the repaired text under names of their
    own.
    """
    repaired = {f"repaired_{name}": value for name, value in row["repaired_terms"].items()}
    return {**{name: row[name] for name in ANSWER}, **row["terms"], **repaired}


def frame(rows: Iterable[Row], first: list[str]) -> pandas.DataFrame:
    """Rows by their ids, the columns of `first` before all others; UserError without pandas."""
    try:
        import pandas
    except ImportError:
        raise UserError("tables need pandas: pip install pandas") from None
    rows = list(rows)
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    return pandas.DataFrame.from_records(rows, columns=columns).set_index("id")
