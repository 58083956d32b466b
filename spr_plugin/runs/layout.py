"""The layout of a run's folder: the one place that knows its names."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, Damaged, read_json
from spr_plugin.runs import lock
from spr_plugin.runs.log import Log

LOCK = lock.NAME
LAYOUT = 4  # its version; another one's folder is neither gone on with nor guessed at
MANIFEST = "manifest.json"
# Stage → what it leaves. The first holds its manifest; records can be had again by their text alone, so that
# they are set aside where a stage is made again, and weights are not. "round" is each later round's folder.
PARTS_OF = {
    "queries": ("queries",),
    "candidates": ("candidates", "batches"),
    "scores": ("scores",),
    "pairs": ("pairs",),
    "dpo": ("dpo", "policy", "bad_pairs", "round", "exit.json"),
}
RECORDS = frozenset("queries candidates batches scores pairs".split())
REPLACED = ".replaced"
# Of the manifests of layout 1, which named no layout; other tools write files of that name too.
OLD_KEYS = {"hash", "config", "inputs", "versions"}
# What a run of ours writes to its folder: nothing else is ever deleted there. Lengths and reference log-probs
# are kept under hashes of all that they depend on, so that they belong to no stage.
PARTS = frozenset(part for parts in PARTS_OF.values() for part in parts) | {
    *"entry base lengths reference ranks training.json trainer_state.json failed.json report.html".split(),
    LOCK,
    MANIFEST,
    "regions",  # the queries of layouts before 4, which --spr_overwrite deletes too
}
BEFORE_A_RUN = frozenset({LOCK, MANIFEST, "ranks"})  # what one may leave that died before it began
WEIGHTS = frozenset({"entry", "base", "policy"})  # each written anew as a whole

# Names of files in those folders, by which they are ours; the folders of WHOLE are, whatever is in them,
# since the host's own code writes there.
OURS = re.compile(
    r"rank-\d+\.(jsonl|damaged)|(manifest|counts|index|best|served|begun|[0-9a-f]{16})\.json"
    r"|\d+\.safetensors|log\.jsonl|.*\.tmp"
)
WHOLE = re.compile(r"base(\.tmp)?|.*checkpoint-.*|ranks(-.*)?")
NOT_IN_PLACE = re.compile(rf"(\.[0-9a-f]+)?\.tmp$|{re.escape(REPLACED)}(-\d+)?$")
NUMBERED = re.compile(r"(?<=^round)-\d+$|(?<=^ranks)-[0-9a-f]{16}$")


class Folder:
    """Paths in one run's folder: ``OUTPUT_DIR/spr``, or a later round's in it, which is laid out alike.
    Creates nothing.

    Attributes:
        entry, base, policy: weights as the host left them, the same in the host's own layout, and as DPO left
            them.
        dpo: checkpoints of the DPO stage, and what its steps and probes said.
        bad_pairs: pairs whose loss was not finite.
        training, state, exit, failed, report: which training led to the entry, and its trainer's state; of
            the end, of a failure; the report.
    """

    def __init__(self, path: AnyPath):
        self.path = Path(path)
        self.entry, self.base, self.policy = (self.path / name for name in ("entry", "base", "policy"))
        self.dpo, self.bad_pairs = self.path / "dpo", self.path / "bad_pairs"
        self.training, self.state = self.path / "training.json", self.path / "trainer_state.json"
        self.exit = self.path / "exit.json"
        self.failed, self.report = self.path / "failed.json", self.path / "report.html"
        self.manifest = self.path / MANIFEST
        # Written after the log of queries, which is whole where this is.
        self.skipped = self.path / "queries" / "counts.json"

    @classmethod
    def under(cls, output_dir: AnyPath) -> Folder:
        """The run's of a training that writes to ``output_dir``."""
        return cls(Path(output_dir) / "spr")

    def __str__(self) -> str:
        return str(self.path)

    def log(self, stage: str, rank: int = 0) -> Log:
        """The log of ``queries``, ``batches``, ``candidates``, ``scores``, ``pairs``, ``lengths`` or
        ``reference``.
        """
        return Log(self.path / stage, rank)

    def stage_manifest(self, stage: str) -> Path:
        return self.path / PARTS_OF[stage][0] / MANIFEST

    def round(self, number: int) -> Folder:
        return Folder(self.path / f"round-{number}")

    def rounds(self) -> list[Folder]:
        """Of the later rounds that were begun, in their order."""
        names = [path.name for path in self.path.glob("round-*") if path.is_dir()]
        return [
            self.round(number) for number in sorted(int(name[6:]) for name in names if name[6:].isdecimal())
        ]

    @property
    def whole(self) -> Folder:
        """The run's that this is a later round of, which has its lock, failure and end; else itself."""
        path = self.path.resolve()
        is_later = part_of(path.name) == "round" and Folder(path.parent).manifest.exists()
        return Folder(path.parent) if is_later else self

    def is_finished(self) -> bool:
        """Whether the round's DPO stage is done."""
        return read_json(self.policy / "index.json") is not None


def part_of(name: str) -> str:
    """The part of a run that a file or folder of this name is: a draft, and what was set aside, is of what it
    would become or was, every later round is a "round", and what is left of ranks that met is "ranks"."""
    return NUMBERED.sub("", NOT_IN_PLACE.sub("", name))


def read_manifest(folder: Folder) -> dict[str, Any] | None:
    """The manifest of a run of ours in ``folder``, of whatever layout; None where there is none. UserError
    where it is something else's."""
    try:
        manifest = read_json(folder.manifest)
    except Damaged:
        manifest = "not JSON"
    if isinstance(manifest, dict) and (layout_of(manifest) or OLD_KEYS <= manifest.keys()):
        return manifest
    if manifest is None and not folder.manifest.exists():
        return None
    raise UserError(
        f"{folder.manifest} was written by no run of ours, or is damaged: move it away, or name another"
        " folder"
    )


def layout_of(manifest: dict[str, Any]) -> int | None:
    """The layout that a manifest names; None for one that names none."""
    layout = manifest.get("layout")
    return layout if isinstance(layout, int) and isinstance(manifest.get("config"), dict) else None


def is_run(folder: Folder) -> bool:
    """Whether a manifest proves that a run of ours wrote to ``folder``."""
    with contextlib.suppress(UserError):
        return read_manifest(folder) is not None
    return False
