"""A run's rows, kept up with logs that may be written right now. Writes nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spr_plugin import runs
from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, read_errors
from spr_plugin.lines import one_line
from spr_plugin.marks import Marks, beside, marks_at
from spr_plugin.runs import SavedRun, reading
from spr_plugin.runs.growing import Growing, Replaced
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Record
from spr_plugin.runs.moved import found
from spr_plugin.tools.inspect.choosing import Wanted, categories_like, chosen, facets
from spr_plugin.tools.inspect.rows import FOLDED, Row

STRANGE = (*reading.STRANGE, UserError)  # which is what they become where a plugin is asked


class IndexedRound:
    """One round's rows by query, and its logs.

    Attributes:
        strange: log → how many records could not be read as ours.
    """

    def __init__(self, run: SavedRun, number: int):
        self.run, self.number = run, number
        with reading.strange_errors(run.folder.path):
            self.recipe, self.box_format = run.recipe, run.box_format
        self.rows: dict[str, Row] = {}
        self.logs = {name: Growing(run.folder.log(name), key) for name, (key, _) in FOLDED.items()}
        self.strange: Counter[str] = Counter()
        self._manifest = manifest_state(run.folder)

    def read_on(self) -> bool:
        """Take in what the logs got since; whether that was anything. Replaced where all is to be read
        anew."""
        if manifest_state(self.run.folder) != self._manifest:
            raise Replaced
        changed = False
        for name, (_, fold) in FOLDED.items():
            for id, record in self.logs[name].more():
                row = self.rows.setdefault(id, Row(id, self.number))
                try:
                    fold(row, record, self.recipe)
                except STRANGE:
                    self.strange[name] += 1
                changed = True
        return changed

    def records(self, log: str, id: str) -> list[Record]:
        """A query's records in a log."""
        return self.logs[log][id]


class IndexedRun:
    """A run and its later rounds.

    Args:
        directory: OUTPUT_DIR, OUTPUT_DIR/spr or a folder of ``spr sample``.
        plugins: files that know its box format or recipe.
        images: a folder that its pictures are looked for in first.

    Attributes:
        facets: filter → its values with the number of rows that have each.
        marks_file: of the marks, beside the run.

    Raises:
        UserError: there is no run, or only a later round of one.
    """

    def __init__(self, directory: AnyPath, plugins: tuple[str, ...] = (), images: str | None = None):
        run = runs.open(directory, plugins, images)
        if (whole := run.folder.whole) is not run.folder:
            raise UserError(f"{directory} is a later round: give the folder of the whole run, {whole}")
        self.directory, self.images, self.rounds = directory, images, [IndexedRound(run, 1)]
        self.marks_file = beside(run.folder.path)
        self.facets: dict[str, dict[str, int]] = {}
        self._queries: dict[str, str] = {}  # pair → query
        self.refresh()

    @property
    def folder(self) -> Folder:
        return self.rounds[0].run.folder

    def refresh(self) -> None:
        """Take in what was written since."""
        known = len(self.rounds)
        for number, folder in enumerate(self.folder.rounds()[known - 1 :], known + 1):
            self.rounds.append(IndexedRound(SavedRun(folder, self.images), number))
        changed = len(self.rounds) != known
        for index, one in enumerate(self.rounds):
            try:
                changed |= one.read_on()
            except Replaced:
                again = SavedRun(one.run.folder, self.images)
                self.rounds[index:], self.facets = [IndexedRound(again, index + 1)], {}
                return self.refresh()
        if changed or not self.facets:
            self.facets = facets(self.rows())
            self._queries = {row.pair: row.id for row in self.rows() if row.pair}
        return None

    def rows(self) -> Iterator[Row]:
        for one in self.rounds:
            yield from one.rows.values()

    def query(self, id: str) -> tuple[IndexedRound, Row] | None:
        """The round of a query and its row."""
        return next(((one, one.rows[id]) for one in self.rounds if id in one.rows), None)

    def pair(self, id: str) -> tuple[IndexedRound, Row] | None:
        """The same of the query of a pair."""
        return self.query(self._queries[id]) if id in self._queries else None

    def lost(self, rows: Iterable[Row]) -> dict[str, str]:
        """Query → path of its first picture, of those whose file is at no place."""
        lost = {}
        for row in rows:
            with contextlib.suppress(*STRANGE):
                path = self.rounds[row.round - 1].records("queries", row.id)[0]["pictures"][0]["path"]
                if found(path, self.images) is None:
                    lost[row.id] = path
        return lost

    def marks(self) -> tuple[Marks, str]:
        """The marks, and a line where their file cannot be read."""
        try:
            return marks_at(self.marks_file), ""
        except UserError as error:
            return {}, str(error)

    def chosen(self, wanted: Wanted) -> list[Row]:
        """The rows that are wanted; a text is looked for in ids, names, pictures and answers."""
        with_text = self._queries_with(wanted.text) if wanted.text else None
        named = categories_like(wanted.category, self.facets["category"])
        return chosen(self.rows(), wanted, self.marks()[0], with_text, named)

    def _queries_with(self, text: str) -> set[str]:
        with_text = {query for pair, query in self._queries.items() if text.lower() in pair.lower()}
        for one in self.rounds:
            for name in ("queries", "candidates"):
                with_text = one.logs[name].found(text, with_text)
        return with_text

    def notices(self) -> list[str]:
        """Lines about the run as a whole: whether it goes on, what failed, what cannot be shown."""
        first = self.rounds[0].run
        lines = []
        if owner := first.owner:
            lines.append(f"The run goes on: {owner} writes to it. Look again for more.")
        if failure := first.failure:
            lines.append(f"The run failed in {failure.get('stage')}: {failure.get('error')}")
        if not (owner or failure or first.folder.exit.exists() or first.is_sampling):
            lines.append(
                "The run is not finished, and nobody writes to it: the same command goes on with it."
            )
        for one in self.rounds:
            lines += self._missing(one)
        return [one_line(line) for line in dict.fromkeys(lines)]

    @staticmethod
    def _missing(one: IndexedRound) -> list[str]:
        config, lines = one.run.config, []
        box: Any = config.get("box")
        if one.rows and not config:
            lines.append(
                "The run has no manifest.json: nobody knows its flags. It is read as SPR's, and texts show"
                " without boxes."
            )
        elif config and not box:
            lines.append("The run's manifest names no box format: texts show without boxes.")
        if one.recipe is None:
            named = one.run.config.get("spr_recipe")
            recipe = " ".join(map(str, named)) if isinstance(named, list) else named
            lines.append(
                f"No plugin here has the recipe {recipe}: boxes and categories are not shown; start with"
                " --spr_plugin FILE."
            )
        elif box and one.box_format is None:
            lines.append(
                f"No installed plugin knows the box format {box.get('family')}: texts show without boxes;"
                " start with --spr_plugin FILE."
            )
        if damaged := sum(log.damaged for log in one.logs.values()):
            lines.append(f"{damaged} torn or damaged records are left out.")
        if strange := ", ".join(f"{count} of {name}" for name, count in one.strange.items()):
            lines.append(f"Records that this version cannot read are shown in part, or not: {strange}.")
        return lines


def manifest_state(folder: Folder) -> tuple[int, int] | None:
    """Another one where a run begins anew in the folder; None where there is none."""
    with read_errors(folder.path):
        if not folder.manifest.exists():
            return None
        status = folder.manifest.stat()
        return status.st_mtime_ns, status.st_size
