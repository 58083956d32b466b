"""What a run's folder was made with: a manifest a stage, which holds what that stage's records depend on.

Other settings make their stage, and those behind it, again, and nothing before. That is compared and said
first (:func:`changes`), and done (:func:`bind`) once all is checked that can be.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeGuard

from spr_plugin.config import SPRConfig, shaping
from spr_plugin.data.selection import exclusion_files
from spr_plugin.errors import UserError
from spr_plugin.files import AnyPath, content, read_json, write_json
from spr_plugin.ids import digest
from spr_plugin.plugins import hooks_of
from spr_plugin.progress import say, some
from spr_plugin.runs.clearing import make_again, refuse_claimed, start_over
from spr_plugin.runs.layout import (
    LAYOUT,
    MANIFEST,
    PARTS_OF,
    RECORDS,
    REPLACED,
    Folder,
    layout_of,
    read_manifest,
)
from spr_plugin.runs.log import lines_in

Settings = dict[str, Any]  # flag → value, plain data
# Which stages' records a plugin's hook shapes; the host's own training is bound by spr/training.json.
RECIPE_STAGES = ("queries", "candidates", "scores")  # equal queries may be asked and judged otherwise
STAGES_OF = {
    "spr_recipe": RECIPE_STAGES,
    "spr_annotations": ("queries",),
    "spr_box_format": ("candidates",),
    "spr_host": ("candidates",),
    "spr_scorer": ("scores",),
    "spr_similarity": ("scores",),
    "spr_detector": ("scores",),
    "spr_repair": ("scores",),
    "spr_pairing": ("pairs",),
}


def settings_of(
    config: SPRConfig, box: Settings, data_path: str | None = None, excluded: Set[str] = frozenset()
) -> dict[str, Settings]:
    """What each stage of a run depends on: stage → flag → value. A file counts by its content, wherever it
    lies.

    Args:
        box: what the box format says of itself; mined regions are read, prompts written and answers parsed
            with it.
        data_path: of the host, where regions are mined from it.
        excluded: the pairs that ``--spr_exclude_pairs`` marks; notes about them shape nothing.
    """
    settings = shaping(config)
    settings["candidates"]["box"] = box
    sections = settings["queries"]["spr_recipe_config"].items()
    of_recipes = {name: {key: _setting(key, value) for key, value in own.items()} for name, own in sections}
    for stage in RECIPE_STAGES:
        settings[stage] |= {"spr_recipe": settings["queries"]["spr_recipe"], "spr_recipe_config": of_recipes}
    settings["queries"]["spr_pairs"] = of_file(config.spr_pairs)
    if config.spr_annotations is None and config.spr_pairs is None:
        settings["queries"] |= {"data_path": of_file(data_path), "box": box}
    else:
        settings["queries"]["spr_annotations"] = of_file(config.spr_annotations)
    if config.spr_exclude:
        listed = [file for path in config.spr_exclude for file in exclusion_files(path)]
        hashes = [content(file)["hash"] for file in listed if file.is_file()]
        settings["queries"]["spr_exclude"] = {"path": " ".join(config.spr_exclude), "hash": digest(hashes)}
    marked = {"hash": digest(sorted(excluded)), "pairs": sorted(excluded)}
    marks = {"path": config.spr_exclude_pairs, **marked} if excluded else None
    settings["dpo"]["spr_exclude_pairs"] = marks
    shaped = {
        path: {stage for hook in hooks_of(path) for stage in STAGES_OF[hook]} for path in config.spr_plugin
    }
    for stage in settings:
        if paths := [path for path, stages in shaped.items() if stage in stages]:
            hashes = [content(path)["hash"] for path in paths]
            settings[stage]["spr_plugin"] = {"path": " ".join(paths), "hash": digest(hashes)}
    as_a_manifest_gives_them: dict[str, Settings] = json.loads(json.dumps(settings, default=str))
    return as_a_manifest_gives_them


def _setting(name: str, value: Any) -> Any:
    """What stands for a recipe's own setting: a file of annotations counts by its content too."""
    return of_file(value) if name == "annotations" and isinstance(value, str) else value


def of_file(path: AnyPath | None) -> Any:
    """What stands for a file in settings: what it holds, and where it lay; a path that is none stands for
    itself.
    """
    return {"path": str(path), **content(path)} if path and os.path.isfile(path) else path


def check_layout(folder: Folder, folder_flag: str = "--output_dir") -> None:
    """UserError for a folder that another version of ours wrote, older or newer, or that is none of ours, and
    for one that no run has begun and that holds what it would write over."""
    manifest = read_manifest(folder)
    if manifest is None:
        refuse_claimed(folder)
        return
    if layout_of(manifest) == LAYOUT:
        return
    by, was = manifest.get("version", "of an older version"), layout_of(manifest) or 1
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


def changes(
    folder: Folder,
    settings: Mapping[str, Settings],
    restart: Set[str] = frozenset(),
    stays: Set[str] = frozenset(),
) -> Changes:
    """Compare ``settings``, see :func:`settings_of`, with what ``folder`` was made with.

    Args:
        restart: stages to be made again in any case.
        stays: stages whose records come out the same though settings differ: those behind them stay too.

    Raises:
        UserError: a stage's manifest is damaged.
    """
    known = {stage: made for stage in settings if (made := _read_stage(folder, stage))}
    words = {stage: _differences(made["settings"], settings[stage]) for stage, made in known.items()}
    words = {stage: differences for stage, differences in words.items() if differences}
    reached = list(settings)
    while reached and reached[-1] not in known:
        reached.pop()
    # One that is gone before one that is there: nobody knows what the rest was made with.
    words |= {stage: [f"the manifest of {stage} is gone"] for stage in reached if stage not in known}
    order, first = list(settings), [stage for stage in settings if stage in {*words, *restart} - stays]
    behind = order[order.index(first[0]) :] if first else []
    return Changes(words, tuple(stage for stage in order if stage in {*words, *behind}))


def _read_stage(folder: Folder, stage: str) -> dict[str, Any] | None:
    path = folder.stage_manifest(stage)
    known = read_json(path)
    if (known is None and not path.exists()) or (
        isinstance(known, dict) and isinstance(known.get("settings"), dict)
    ):
        return known
    raise UserError(f"{path} is damaged: restore it, or remove it and run the same command again")


def _differences(known: Settings, wanted: Settings) -> list[str]:
    words = []
    for name in sorted(known.keys() | wanted.keys()):
        was, now = known.get(name), wanted.get(name)
        if _is_file(was) and _is_file(now):
            if was["hash"] != now["hash"]:
                words.append(f"--{name} {now['path']} has another content")
        elif was != now:
            was, now = (value["path"] if _is_file(value) else value for value in (was, now))
            flag = "box text" if name == "box" else f"--{name}"  # a flag and the aspect decide
            words.append(f"{flag} was {was}, is {now}")
    return words


def _is_file(setting: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(setting, dict) and {"path", "hash"} <= setting.keys()


def said_of(folder: Folder, changed: Changes) -> str | None:
    """What is made again, why, and what that took before, in a line; None where nothing is there yet."""
    costs = {stage: cost for stage in changed.again if (cost := _cost(folder, stage))}
    if not costs:
        return None
    reasons = dict.fromkeys(words for stage in changed.words for words in changed.words[stage])
    why = "; ".join(reasons) or "as asked"
    aside = [
        part
        for stage in costs
        for part in PARTS_OF[stage]
        if part in RECORDS and (folder.path / part).exists()
    ]
    lies = f"; the former records are kept in {some([part + REPLACED for part in aside])}" if aside else ""
    again = ", ".join(f"{stage} ({cost})" for stage, cost in costs.items())
    return f"{why}: in {folder} is made again: {again}; what comes before stays{lies}"


def _cost(folder: Folder, stage: str) -> str:
    """What a stage's records took, as far as anybody knows; "" where there is nothing."""
    parts = [path for path in map(folder.path.joinpath, PARTS_OF[stage]) if path.exists()]
    made = sum(lines_in(parts[0]).values()) if parts else 0
    filled = [
        path for path in parts if path.is_file() or any(entry.name != MANIFEST for entry in path.iterdir())
    ]
    if not filled:
        return ""
    seconds = (_read_stage(folder, stage) or {}).get("seconds")
    facts = [f"{made} records" if made else "", "" if seconds is None else f"{seconds:.0f} s"]
    return ", ".join(filter(None, facts)) or "begun"


def bind(folder: Folder, settings: Mapping[str, Settings], changed: Changes, overwrite: bool = False) -> None:
    """Set aside or delete what is to be made again, and write down what ``folder`` is made with from now on.

    A process can die at any instant in here: the stages go last to first, each one's manifest after its
    records, so that the same command finds the same left to do.

    Raises:
        UserError: ``overwrite`` with something there that no run of ours made.
    """
    manifest = read_manifest(folder)
    if overwrite:
        start_over(folder, manifest)
    else:
        if line := said_of(folder, changed):
            say(line)
        for stage in reversed(changed.again):
            make_again(folder, stage)
    config = {name: value for flags in settings.values() for name, value in flags.items()}
    kept = {"layout": LAYOUT, "version": _version(), "seed": config.get("spr_seed")}
    write_json(folder.manifest, {**kept, "config": config, "versions": _versions()})
    for stage, wanted in settings.items():
        known = _read_stage(folder, stage)
        if known is None or known["settings"] != wanted:
            write_json(folder.stage_manifest(stage), {"stage": stage, "settings": wanted})


def took(folder: Folder, stage: str, seconds: float) -> None:
    """Add to what a stage is known to have taken."""
    known = _read_stage(folder, stage)
    if known is not None:
        write_json(
            folder.stage_manifest(stage), {**known, "seconds": round(known.get("seconds", 0) + seconds, 1)}
        )


def _version() -> str:
    try:
        return importlib.metadata.version("spr-plugin")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"


def _versions() -> dict[str, str]:
    modules = ("torch", "transformers", "peft", "accelerate", "deepspeed", "trl")
    return {
        name: sys.modules[name].__version__
        for name in modules
        if hasattr(sys.modules.get(name), "__version__")
    }
