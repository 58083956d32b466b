"""Flags that are set by files: a recipe's own section, the DPO stage by TRL's names; and which stage what
shapes, of files what they hold.
"""

import dataclasses
import difflib
from collections.abc import Set
from pathlib import Path
from typing import TypeVar

from spr_plugin.config.all_flags import KINDS, STAGES, AllFlags
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.config.pairs import PairsFlags
from spr_plugin.config.queries import QueriesFlags
from spr_plugin.config.scores import ScoresFlags
from spr_plugin.config.trl import read_dpo_config
from spr_plugin.errors import UserError
from spr_plugin.loading import read_settings
from spr_plugin.settings import Kind, Values, kinds_of

PRESETS = Path(__file__).parent / "presets"
T = TypeVar("T")
# What `spr:` of --spr_recipe_config may set, by its name there.
OF_QUERIES = "data_aspect exclude min_objects min_area keep_crowd regions_per_image more_than prompts".split()
SPR_KINDS = {name: KINDS[f"spr_{name}"] for name in OF_QUERIES} | {
    name.removeprefix("spr_"): kind for name, kind in (kinds_of(ScoresFlags) | kinds_of(PairsFlags)).items()
}


def dpo_settings(config: DPOFlags) -> tuple[Values, Values]:
    """(flags, arguments of transformers' Trainer) that ``--spr_dpo_config`` sets."""
    if config.spr_dpo_config is None:
        return {}, {}
    flags, trainer = read_dpo_config(config.spr_dpo_config, KINDS)
    if "spr_loss_type" in flags:  # as TRL takes such a file
        flags.setdefault("spr_loss_weights", [1.0] * len(flags["spr_loss_type"]))
    return flags, trainer


def recipe_settings(config: QueriesFlags) -> tuple[Values, Values]:
    """What ``--spr_recipe_config`` sets: (flags, which the section `spr` does; recipe → the section of each
    other one that has any). UserError where it has a section of none of the recipes.
    """
    sections, others = _sections(config)
    if not isinstance(config.spr_recipe_config, str):
        return {}, sections
    file = f"--spr_recipe_config {config.spr_recipe_config}"
    for name in (name for name in config.recipes() if name not in sections):
        # One of several may be left as it is, but not for a slip of the finger.
        if not sections or difflib.get_close_matches(name, others, 1, cutoff=0.85):
            raise UserError(_no_section(file, name))
    flags = _read(sections.pop("spr", {}), SPR_KINDS, f"{file}: spr")
    return {f"spr_{name}": value for name, value in flags.items()}, sections


def _sections(config: QueriesFlags) -> tuple[dict[str, Values], list[str]]:
    """Recipe → its section, of those of ``--spr_recipe`` that have one; the names of other sections."""
    given = config.spr_recipe_config
    if given is None or isinstance(given, dict):  # of a run that is opened: what its manifest holds
        return dict(given or {}), []
    file = f"--spr_recipe_config {given}"
    content = read_settings(given, file, yaml=not given.lower().endswith(".json"))
    sections = {name: content[name] or {} for name in config.recipes() if name in content}
    if wrong := [name for name, section in sections.items() if not isinstance(section, dict)]:
        raise UserError(_no_section(file, wrong[0]))
    return sections, [str(name) for name in content if name not in sections]


def _no_section(file: str, name: str) -> str:
    return f"{file}: has no section {name} with settings of --spr_recipe {name}"


def preset_settings(config: AllFlags) -> Values:
    """What ``--spr_preset`` sets."""
    if config.spr_preset is None:
        return {}
    file = PRESETS / f"{config.spr_preset}.yaml"
    return _read(read_settings(file, f"--spr_preset {file}", yaml=True), KINDS, f"--spr_preset {file}")


def beneath(layer: Values, above: Set[str]) -> Values:
    """What `layer` sets of what is not set above it. Weights go with the losses that they stand beside, and a
    learning rate with the ratio that says it otherwise.
    """
    gone = {"spr_loss_weights"} if "spr_loss_type" in layer.keys() & above else set()
    gone |= {"spr_rate_ratio"} if "spr_learning_rate" in above else set()
    return {name: value for name, value in layer.items() if name not in above | gone}


def own_settings(config: QueriesFlags, settings: type[T]) -> T:
    """The settings of the recipe that a config of its own names, other than SPR: a dataclass, whose fields
    are each a `setting`, made of the recipe's section of ``--spr_recipe_config``. UserError names what is
    unknown or makes no sense.
    """
    (name,) = config.recipes()
    where = f"--spr_recipe_config {config.spr_recipe_config}: {name}"
    return settings(**_read(_sections(config)[0].get(name, {}), kinds_of(settings), where))


def _read(section: Values, kinds: dict[str, Kind], where: str) -> Values:
    """A section's values by their kinds, checked like flags."""
    if unknown := sorted(map(str, section.keys() - kinds.keys())):
        raise UserError(f"{where}: {', '.join(unknown)} is no setting; it takes {', '.join(sorted(kinds))}")
    values = {name: kinds[name].read(value, f"{where}: {name}") for name, value in section.items()}
    for name, value in values.items():
        kinds[name].check(value, f"{where}: {name}")
    return values


def shaping(config: AllFlags) -> dict[str, Values]:
    """Stage → flag → value of what shapes its records, in the order of the stages."""
    values = {f: getattr(config, f.name) for f in dataclasses.fields(config)}
    files = {"spr_dpo_config": dpo_settings(config)[1], "spr_recipe_config": recipe_settings(config)[1]}
    values |= {f: files[f.name] for f in values if f.name in files}
    return {
        stage: {f.name: value for f, value in values.items() if f.metadata["shapes"] == stage}
        for stage in STAGES
    }
