"""What a run's folder was made with: a manifest a stage, which holds what that stage's records depend on.

Other settings make their stage, and those behind it, again, and nothing before. That is compared and said
first (:func:`changes`), and done (:func:`bind`) once all is checked that can be.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from spr_plugin.config import SPRConfig, shaping
from spr_plugin.errors import UserError
from spr_plugin.files import content, disk_errors, read_json, remove, write_json
from spr_plugin.plugins import hooks_of
from spr_plugin.progress import say, some
from spr_plugin.runs.layout import (
    LAYOUT,
    LOCK,
    MANIFEST,
    OURS,
    PARTS,
    PARTS_OF,
    RECORDS,
    REPLACED,
    WHOLE,
    Folder,
    part_of,
)

# Of the manifests of layout 1, which named no layout; other tools write files of that name too.
OLD_KEYS = {"hash", "config", "inputs", "versions"}
# Which stage's records a plugin's hook shapes; the host's own training is bound by spr/training.json.
STAGE_OF = {
    "spr_annotations": "regions",
    "spr_box_format": "regions",
    "spr_host": "candidates",
    "spr_scorer": "scores",
    "spr_similarity": "scores",
    "spr_detector": "scores",
}


def settings_of(config: SPRConfig, box: dict, data_path: str | None = None) -> dict[str, dict]:
    """What each stage of a run depends on: stage → flag → value. A file counts by its content, wherever it lies.

    Args:
        box: what the box format says of itself; regions are read, prompts written and answers parsed with it.
        data_path: of the host, where regions are mined from it.
    """
    settings = shaping(config)
    settings["regions"]["box"] = box
    if config.spr_annotations is None:
        settings["regions"]["data_path"] = of_file(data_path)
    else:
        settings["regions"]["spr_annotations"] = of_file(config.spr_annotations)
    for path in config.spr_plugin:
        for stage in sorted({STAGE_OF[hook] for hook in hooks_of(path)}):
            settings[stage].setdefault("spr_plugin", {})[Path(path).name] = content(path)["hash"]
    return _plain(settings)


def of_file(path):
    """What stands for a file in settings: what it holds, and where it lay; a path that is none stands for itself."""
    return {"path": str(path), **content(path)} if path and os.path.isfile(path) else path


def _plain(value):
    """The value as a manifest gives it back."""
    return json.loads(json.dumps(value, default=str))


def read_manifest(folder: Folder) -> dict | None:
    """The manifest of a run of ours in ``folder``, of whatever layout; None where there is none. UserError
    where it is something else's."""
    try:
        manifest = read_json(folder.manifest)
    except UserError:
        manifest = "not JSON"
    if manifest is None or isinstance(manifest, dict) and (_layout(manifest) or OLD_KEYS <= manifest.keys()):
        return manifest
    raise UserError(f"{folder.manifest} was written by no run of ours: move it away, or name another folder")


def _layout(manifest: dict) -> int | None:
    layout = manifest.get("layout")
    return layout if isinstance(layout, int) and isinstance(manifest.get("config"), dict) else None


def is_run(folder: Folder) -> bool:
    """Whether a manifest proves that a run of ours wrote to ``folder``."""
    with contextlib.suppress(UserError):
        return read_manifest(folder) is not None
    return False


def check_layout(folder: Folder, folder_flag: str = "--output_dir") -> None:
    """UserError for a folder that another version of ours wrote, older or newer, or that is none of ours."""
    manifest = read_manifest(folder)
    if manifest is None or _layout(manifest) == LAYOUT:
        return
    by, was = manifest.get("version", "of an older version"), _layout(manifest) or 1
    over = ", or --spr_overwrite to start over" if folder_flag == "--output_dir" else ""
    raise UserError(
        f"{folder} was written by spr-plugin {by} in layout {was}, and this is {_version()} with layout "
        f"{LAYOUT}: take that version to go on with it, another {folder_flag}{over}"
    )


# --- what a folder was made with, and what of it is to be made again


@dataclass(frozen=True)
class Changes:
    """How the settings of a run differ from those that its folder was made with.

    Attributes:
        words: stage → its settings that differ, in words.
        again: the stages to be made again, in their order.
    """

    words: Mapping[str, list[str]]
    again: tuple[str, ...]


def changes(folder: Folder, settings: Mapping[str, dict], restart: Set[str] = frozenset(), stays: Set[str] = frozenset()) -> Changes:
    """Compare ``settings``, see :func:`settings_of`, with what ``folder`` was made with.

    Args:
        restart: stages to be made again in any case.
        stays: stages whose records come out the same though settings differ: those behind them stay too.

    Raises:
        UserError: a stage's manifest is damaged.
    """
    known = {stage: _read_stage(folder, stage) for stage in settings}
    words = {stage: _differences(known[stage]["settings"], settings[stage]) for stage in settings if known[stage]}
    words = {stage: found for stage, found in words.items() if found}
    order, first = list(settings), [stage for stage in settings if stage in {*words, *restart} - stays]
    behind = order[order.index(first[0]) :] if first else []
    return Changes(words, tuple(stage for stage in order if stage in {*words, *behind}))


def _read_stage(folder: Folder, stage: str) -> dict | None:
    path = folder.stage_manifest(stage)
    known = read_json(path)
    if known is None and not path.exists() or isinstance(known, dict) and isinstance(known.get("settings"), dict):
        return known
    raise UserError(f"{path} is damaged: restore it, or remove it and run the same command again")


def _differences(known: dict, wanted: dict) -> list[str]:
    words = []
    for name in sorted(known.keys() | wanted.keys()):
        was, now = known.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict) and "hash" in was.keys() & now.keys():
            if was["hash"] != now["hash"]:
                words.append(f"--{name} {now['path']} has another content")
        elif was != now:
            flag = "box text" if name == "box" else f"--{name}"  # a flag and the aspect decide
            words.append(f"{flag} was {was}, is {now}")
    return words


def said_of(folder: Folder, changed: Changes) -> str | None:
    """What is made again, why, and what that took before, in a line; None where nothing is there yet."""
    costs = {stage: cost for stage in changed.again if (cost := _cost(folder, stage))}
    if not costs:
        return None
    why = "; ".join(words for stage in changed.words for words in changed.words[stage]) or "as asked"
    aside = [part for stage in costs for part in PARTS_OF[stage] if part in RECORDS and (folder.path / part).exists()]
    lies = f"; the former records are kept in {some([part + REPLACED for part in aside])}" if aside else ""
    again = ", ".join(f"{stage} ({cost})" for stage, cost in costs.items())
    return f"{why}: in {folder} is made again: {again}; what comes before stays{lies}"


def _cost(folder: Folder, stage: str) -> str:
    """What a stage's records took, as far as anybody knows; "" where there is nothing."""
    parts = [path for path in map(folder.path.joinpath, PARTS_OF[stage]) if path.exists()]
    made = sum(file.read_bytes().count(b"\n") for file in parts[0].glob("rank-*.jsonl")) if parts else 0
    held = [path for path in parts if path.is_file() or any(entry.name != MANIFEST for entry in path.iterdir())]
    if not held:
        return ""
    seconds = (_read_stage(folder, stage) or {}).get("seconds")
    facts = [f"{made} records" if made else "", "" if seconds is None else f"{seconds:.0f} s"]
    return ", ".join(filter(None, facts)) or "begun"


def bind(folder: Folder, settings: Mapping[str, dict], changed: Changes, overwrite: bool = False) -> None:
    """Set aside or delete what is to be made again, and write down what ``folder`` is made with from now on.

    A process can die at any instant in here: the stages go last to first, each one's manifest after its
    records, so that the same command finds the same left to do.

    Raises:
        UserError: ``overwrite`` with something there that no run of ours made.
    """
    manifest = read_manifest(folder)
    before = manifest.get("before", []) if manifest else []
    if overwrite:
        _start_over(folder, manifest)
        before = []
    else:
        if line := said_of(folder, changed):
            say(line)
        if manifest is None:
            before = [name for name in _names(folder.path) if part_of(name) in PARTS_OF]
        for stage in reversed(changed.again):
            make_again(folder, stage)
    config = {name: value for flags in settings.values() for name, value in flags.items()}
    kept = {"layout": LAYOUT, "version": _version(), "seed": config.get("spr_seed"), "before": before}
    write_json(folder.manifest, {**kept, "config": config, "versions": _versions()})
    for stage, wanted in settings.items():
        known = _read_stage(folder, stage)
        if known is None or known["settings"] != wanted:
            write_json(folder.stage_manifest(stage), {"stage": stage, "settings": wanted})


def took(folder: Folder, stage: str, seconds: float) -> None:
    """Add to what a stage is known to have taken."""
    known = _read_stage(folder, stage)
    if known is not None:
        write_json(folder.stage_manifest(stage), {**known, "seconds": round(known.get("seconds", 0) + seconds, 1)})


# --- starting over


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
    aside = path.with_name(path.name + REPLACED)
    if any(path.glob("*.jsonl")):
        clear(aside)
        with disk_errors(path):
            path.rename(aside)
    else:
        clear(path)


def delete(folder: Folder, parts: Set[str] = PARTS) -> list[Path]:
    """Delete these parts of a run of ours, later rounds as folders of their own.

    A manifest goes last: it proves the rest to be ours when the same command is given again.

    Returns:
        what stays because no run of ours made it.
    """
    stays = []
    for entry in sorted(folder.path.iterdir(), key=lambda entry: (entry.name == MANIFEST, entry.name)):
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
    """Delete a part of a run, but what is in its folder by a name that no run of ours gives; that is returned."""
    if path.is_symlink() or not path.is_dir() or WHOLE.fullmatch(path.name):
        remove(path)
        return []
    stays = []
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.name == MANIFEST, entry.name)):
        if entry.is_dir() and not entry.is_symlink():
            stays += clear(entry) if entry.name == "best" or WHOLE.fullmatch(entry.name) else [entry]
        elif OURS.fullmatch(entry.name):
            remove(entry)
        else:
            stays.append(entry)
    if not stays:
        remove(path)
    return stays


def _start_over(folder: Folder, known: dict | None) -> None:
    """``--spr_overwrite``: leave nothing of the run whose manifest is ``known``, but for that, which is to be
    replaced."""
    without = [name for name in _names(folder.path) if part_of(name) not in (LOCK, MANIFEST, "ranks")]
    foreign = known.get("before", []) if known else without
    if foreign:
        raise UserError(
            f"--spr_overwrite: no {MANIFEST} proves that a run of ours made {some(foreign)} in {folder}: "
            "move it away, or name another folder"
        )
    if known and (stays := delete(folder, PARTS - {LOCK, MANIFEST})):
        names = some([str(path.relative_to(folder.path)) for path in stays])
        say(f"--spr_overwrite: {names} in {folder} was made by no run of ours and stays")


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def _version() -> str:
    try:
        return importlib.metadata.version("spr-plugin")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"


def _versions() -> dict[str, str]:
    modules = ("torch", "transformers", "peft", "accelerate", "deepspeed", "trl")
    return {name: sys.modules[name].__version__ for name in modules if hasattr(sys.modules.get(name), "__version__")}
