"""Deleting in a run's folder: by names that a run of ours gives, under a manifest that proves it, following
no link.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Set
from pathlib import Path
from typing import Any

from spr_plugin.errors import UserError
from spr_plugin.files import disk_errors, remove
from spr_plugin.progress import say, some
from spr_plugin.runs.layout import (
    BEFORE_A_RUN,
    LOCK,
    MANIFEST,
    OURS,
    PARTS,
    PARTS_OF,
    RECORDS,
    REPLACED,
    WEIGHTS,
    WHOLE,
    Folder,
    is_run,
    part_of,
)

# Part → its turn; what is not named here goes before.
DELETED = {
    part: turn
    for turn, part in enumerate(
        "exit.json round policy dpo bad_pairs reference lengths pairs scores batches candidates queries base"
        " entry trainer_state.json training.json manifest.json".split()
    )
}


def make_again(folder: Folder, stage: str) -> None:
    """Leave nothing of a stage: records are set aside, all else is deleted, its manifest last."""
    for part in reversed(PARTS_OF[stage]):
        path = folder.path / part
        if part == "round":
            delete(folder, {"round"})
        elif part in RECORDS and path.is_dir() and not path.is_symlink():
            _set_aside(path)
        else:
            clear(path)
            clear(path.with_name(path.name + ".tmp"))


def _set_aside(path: Path) -> None:
    """Rename a folder of records, unless there are none in it."""
    if any(path.glob("*.jsonl")):
        names = (
            f"{path.name}{REPLACED}{f'-{number}' if number > 1 else ''}" for number in itertools.count(1)
        )
        with disk_errors(path):
            path.rename(next(aside for name in names if not (aside := path.with_name(name)).exists()))
    else:
        clear(path)


def delete(folder: Folder, parts: Set[str] = PARTS) -> list[Path]:
    """Delete these parts of a run of ours, later rounds as folders of their own.

    What was made last goes first, so that whatever a death leaves is what a run leaves that had come so far;
    the manifest goes last: it proves the rest to be ours when the same command is given again.

    Returns:
        what stays because no run of ours made it.
    """
    stays = []
    for entry in sorted(
        folder.path.iterdir(), key=lambda entry: (DELETED.get(part_of(entry.name), -1), entry.name)
    ):
        part = part_of(entry.name)
        if part not in PARTS:
            stays.append(entry)
        elif part == "round" and part in parts and entry.is_dir() and not entry.is_symlink():
            stays += delete(Folder(entry)) if is_run(Folder(entry)) else [entry]
            if not any(entry.iterdir()):
                remove(entry)
        elif part in parts or entry.suffix == ".tmp":
            stays += clear(entry)
    return stays


def clear(path: Path) -> list[Path]:
    """Delete a part of a run, but what is in its folder by a name that no run of ours gives; that is
    returned.
    """
    if path.is_symlink() or not path.is_dir() or WHOLE.fullmatch(path.name):
        remove(path)
        return []
    stays = []
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.name == MANIFEST, entry.name)):
        if not _named_as_ours(entry):
            stays.append(entry)
        elif entry.is_dir():
            stays += clear(entry)
        else:
            remove(entry)
    if not stays:
        remove(path)
    return stays


def _named_as_ours(entry: Path) -> bool:
    """Whether what lies in a part of a run has a name that a run of ours gives."""
    if entry.is_dir() and not entry.is_symlink():
        return entry.name == "best" or bool(WHOLE.fullmatch(entry.name))
    return bool(OURS.fullmatch(entry.name))


def refuse_claimed(folder: Folder) -> None:
    """UserError for a folder without a manifest that holds what a run would write over, or take for its
    own.
    """
    if claimed := _claimed(folder):
        _refuse_unproved(folder, [str(path.relative_to(folder.path)) for path in claimed])


def _claimed(folder: Folder) -> list[Path]:
    claimed = []
    for entry in sorted(folder.path.iterdir()) if folder.path.is_dir() else ():
        part = part_of(entry.name)
        if part not in PARTS - BEFORE_A_RUN:
            continue
        if part == "round":
            claimed += [entry] if is_run(Folder(entry)) else _claimed(Folder(entry))
        elif not entry.is_dir():
            claimed.append(entry)
        elif part in WEIGHTS:
            claimed += [entry] if any(entry.iterdir()) else []
        else:
            claimed += filter(_named_as_ours, sorted(entry.iterdir()))
    return claimed


def _refuse_unproved(folder: Folder, names: list[str]) -> None:
    raise UserError(
        f"no {MANIFEST} proves that a run of ours made {some(names)} in {folder}: move it away, or name"
        " another folder"
    )


def start_over(folder: Folder, known: dict[str, Any] | None) -> None:
    """``--spr_overwrite``: leave nothing of the run whose manifest is ``known``, but for that, which is to be
    replaced."""
    there = [name for name in names_in(folder.path) if part_of(name) not in BEFORE_A_RUN]
    if known is None and there:
        _refuse_unproved(folder, there)
    if known and (stays := delete(folder, PARTS - {LOCK, MANIFEST})):
        names = some(sorted(str(path.relative_to(folder.path)) for path in stays))
        say(f"--spr_overwrite: {names} in {folder} was made by no run of ours and stays")


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []
