"""Opening a run's folder: read-only, in whatever state it is, without torch and without running what it
names.

A folder may have been downloaded: no Python file that its manifest names is ever loaded. Formats of installed
plugins are found by their entry points, those of a file where it is named again.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, read_errors, read_json
from spr_plugin.formats import BoxFormat, box_format
from spr_plugin.outputs import refuse_unnamed
from spr_plugin.pairing import PreferencePair
from spr_plugin.plugins import load_file
from spr_plugin.progress import say
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.clearing import names_in
from spr_plugin.runs.layout import LAYOUT, PARTS, Folder, part_of, read_manifest
from spr_plugin.runs.lock import owner_of
from spr_plugin.runs.log import Record, Records, files_in
from spr_plugin.runs.moved import relocated
from spr_plugin.runs.steps import StepLog

T = TypeVar("T")
STATES = ("empty", "stopped", "running", "failed", "finished")
# What a record of another version or of a plugin that is not here raises where it is read as ours.
STRANGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


@contextlib.contextmanager
def strange_errors(where: AnyPath) -> Iterator[None]:
    """Inside, what reading a record of another form raises is a line that names the folder it is in."""
    try:
        yield
    except STRANGE as error:
        raise UserError(f"{where} holds what this version cannot read ({error!r})") from error


def _is_part(path: Path) -> bool:
    """Whether a run of ours wrote this. A folder must hold what stages write: others have such names."""
    if part_of(path.name) not in PARTS:
        return False
    return not path.is_dir() or (path / "manifest.json").exists() or bool(files_in(path))


class SavedRun:
    """A run as its folder tells it; what is not there yet is empty. Records are read when they are asked for.

    Attributes:
        folder: where its files are.
        images: a folder that its pictures are looked for in first, below it or with less of their path.
        config: flag → value that it was made with, and ``box``, its box format.
        version, layout: of the spr-plugin that wrote it; `versions` of what it stood on.
    """

    def __init__(self, folder: Folder, images: str | None = None):
        self.folder, self.images = folder, images
        self._records: dict[str, Records] = {}
        manifest = read_manifest(folder)
        parts = (folder.path / name for name in names_in(folder.path))
        if manifest is None and not any(map(_is_part, parts)):  # killed at its start
            raise UserError(
                f"{folder}: no SPR run here, or none that has begun; give OUTPUT_DIR, or a folder of"
                " `spr sample`"
            )
        manifest = manifest or {}
        self.config: dict[str, Any] = manifest.get("config", {})
        self.versions: dict[str, str] = manifest.get("versions", {})
        self.version, self.layout = manifest.get("version"), manifest.get("layout", 1 if manifest else LAYOUT)
        if self.layout < LAYOUT:
            raise UserError(
                f"{folder} was written by spr-plugin {self.version or 'of an older version'} in layout"
                f" {self.layout}, which this one, of layout {LAYOUT}, cannot read: open it with that version"
            )
        if self.layout > LAYOUT:
            say(
                f"{folder} was written by spr-plugin {self.version} in layout {self.layout}, newer than this"
                f" one's {LAYOUT}: what is not known here is not shown"
            )

    @property
    def owner(self) -> str | None:
        """The process that writes to the folder now, None where nobody does or nobody can know."""
        return owner_of(self.folder.whole.path)

    @property
    def state(self) -> str:
        """One of STATES, as it is now; ``stopped`` is a run whose process is gone and that can go on. A later
        round is finished once its model is there, whatever becomes of the run."""
        if self.folder.whole is not self.folder and self.folder.is_finished():
            return "finished"
        if self.owner:
            return "running"
        if self.failure:
            return "failed"
        if self.folder.exit.exists() or (self.is_sampling and self._all_answered()):
            return "finished"
        return "stopped" if self.records("queries") else "empty"

    @property
    def is_sampling(self) -> bool:
        """Whether this is a folder of ``spr sample``, which goes no further than answers."""
        return "spr_samples" in self.config and not self.folder.stage_manifest("scores").exists()

    def _all_answered(self) -> bool:
        # The halves of a batch that was split ask what it asked.
        asked = {tuple(ask) for batch in self.records("batches").values() for ask in batch["asks"]}
        wanted: int = len(asked) * self.config["spr_samples"]
        return 0 < wanted == len(self.records("candidates"))

    @property
    def failure(self) -> dict[str, Any] | None:
        """Stage, error, rank and time of what failed last, None where nothing did."""
        return self._table(self.folder.whole.failed)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason → what the source of the queries gave and was left out."""
        return self._table(self.folder.skipped) or {}

    @staticmethod
    def _table(path: AnyPath) -> dict[str, Any] | None:
        """What a small file holds; None, and a line where it is damaged, for one that holds nothing."""
        try:
            table = read_json(path)
        except UserError as error:
            say(str(error))
            return None
        return table if isinstance(table, dict) else None

    def records(self, stage: str) -> Records:
        """id → record of ``queries``, ``candidates``, ``scores``, ``pairs``, ``lengths`` or ``reference`` as
        they are when first asked for; damaged ones are left out and counted in a line.
        """
        if stage not in self._records:
            records = self._records[stage] = self.folder.log(stage).read()
            if damaged := sum(map(len, records.damaged.values())):
                say(f"{self.folder.path / stage}: {damaged} torn or damaged records are left out")
        return self._records[stage]

    @functools.cached_property
    def steps(self) -> list[Record]:
        """What the steps of the DPO stage said, see :mod:`spr_plugin.runs.steps`."""
        return StepLog(self.folder).read()

    @functools.cached_property
    def queries(self) -> dict[str, Query]:
        """id → the query with its pictures and truth, as the recipe reads it; as any recipe's where its
        plugin is not there.
        """
        read = self.recipe.read if self.recipe else Query.from_record
        return {query.id: query for query in self._made("queries", read)}

    @functools.cached_property
    def flags(self) -> SPRConfig:
        """What it was made with, as flags; what this version does not know is left out, and plugins are:
        they are joined in a manifest, and none of their files is looked at, only what is loaded already.
        """
        flags = SPRConfig()
        known = {name: _value(value) for name, value in self.config.items() if name in vars(flags)}
        return flags.but_for({**known, "spr_plugin": []})

    @functools.cached_property
    def recipe(self) -> Recipe[Any] | None:
        """What was asked and judged, without the models; None, and a line, where nobody here has it."""
        try:
            return find_recipe(self.flags, self.box_format)
        except UserError as error:
            say(f"{self.folder}: {error}; name its file with --spr_plugin FILE")
            return None

    @functools.cached_property
    def pairs(self) -> list[PreferencePair]:
        """The preference pairs; queries without one are records of "pairs" alone, with the reason."""
        return self._made("pairs", PreferencePair.from_record)

    @functools.cached_property
    def excluded(self) -> frozenset[str]:
        """Ids of the pairs that ``--spr_exclude_pairs`` named: there are such pairs, and none trained."""
        marks = self.config.get("spr_exclude_pairs")
        return frozenset(marks.get("pairs", ()) if isinstance(marks, dict) else ())

    def _made(self, stage: str, make: Callable[[Record], T]) -> list[T]:
        """What ``make`` makes of a stage's records, but of those that say why there is nothing to make."""
        try:
            there = (record for record in self.records(stage).values() if "skip" not in record)
            folder = self.images
            return [make(relocated(record, folder) if folder else record) for record in there]
        except STRANGE as error:
            where = self.folder.path / stage
            raise UserError(f"{where} holds no {stage} that this version reads ({error!r})") from None

    @functools.cached_property
    def box_format(self) -> BoxFormat | None:
        """How its texts write boxes; None, and a line, where the plugin that knows is not there."""
        box = self.config.get("box")
        if box is None:
            return None
        try:
            return box_format(box.get("family"), box.get("aspect"))
        except UserError:
            say(
                f"{self.folder}: no installed plugin knows the box format {box.get('family')}; its texts show"
                " without boxes: name its file with --spr_plugin FILE"
            )
            return None

    @functools.cached_property
    def rounds(self) -> list[SavedRun]:
        """The later rounds that were begun, each a run like this."""
        return [SavedRun(folder, self.images) for folder in self.folder.rounds()]


def _value(value: Any) -> Any:
    """Of what a manifest holds for a flag: of a file, also in a recipe's section, where it lay."""
    if not isinstance(value, dict):
        return value
    return value["path"] if value.keys() >= {"path", "hash"} else {k: _value(v) for k, v in value.items()}


def open(path: AnyPath, plugins: Iterable[str] = (), images: str | None = None) -> SavedRun:
    """The run in ``path``: OUTPUT_DIR, OUTPUT_DIR/spr, a later round in there, or a folder of ``spr sample``.

    Args:
        plugins: Python files of plugins that know its box format; none that the folder names is ever run.
        images: where its pictures are, if they are not where the run found them.

    Raises:
        UserError: there is no run, or one of an older layout; a plugin file is none, or no folder `images`.
    """
    if isinstance(plugins, str) or not isinstance(plugins, Iterable):
        raise UserError(f"plugins: give a list of files, not {plugins!r}")
    if images is not None and not (isinstance(images, (str, os.PathLike)) and os.path.isdir(images)):
        raise UserError(f"--images {images}: no such folder")
    for file in plugins:
        load_file(file)
    refuse_unnamed("DIRECTORY, the folder of a run", path)
    itself, below = Folder(path), Folder.under(path)
    with read_errors(path):
        return SavedRun(below if below.path.is_dir() and not itself.manifest.exists() else itself, images)
