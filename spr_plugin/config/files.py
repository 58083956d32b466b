"""Flags that are set by files: a recipe's own section, the DPO stage by TRL's names; and which stage what
shapes, of files what they hold.
"""

import dataclasses
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
from spr_plugin.settings import Kind, Values, default_of, kinds_of

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
    return read_dpo_config(config.spr_dpo_config, KINDS)


def recipe_settings(config: QueriesFlags) -> tuple[Values, Values]:
    """(flags, settings that are no flags) of the recipe's section of ``--spr_recipe_config``."""
    if config.spr_recipe_config is None:
        return {}, {}
    if isinstance(config.spr_recipe_config, dict):  # of a run that is opened: what its manifest holds
        return {}, config.spr_recipe_config
    file = f"--spr_recipe_config {config.spr_recipe_config}"
    given = read_settings(
        config.spr_recipe_config, file, yaml=not config.spr_recipe_config.lower().endswith(".json")
    )
    section = given.get(config.spr_recipe) or {} if config.spr_recipe in given else None
    if not isinstance(section, dict):
        raise UserError(
            f"{file}: has no section {config.spr_recipe} with settings of --spr_recipe {config.spr_recipe}"
        )
    if config.spr_recipe != "spr":
        return {}, section
    return {f"spr_{name}": value for name, value in _read(section, SPR_KINDS, f"{file}: spr").items()}, {}


def preset_settings(config: AllFlags) -> Values:
    """What ``--spr_preset`` sets: those flags of its file that stand at their defaults."""
    if config.spr_preset is None:
        return {}
    file = PRESETS / f"{config.spr_preset}.yaml"
    values = _read(read_settings(file, f"--spr_preset {file}", yaml=True), KINDS, f"--spr_preset {file}")
    defaults = {f.name: default_of(f) for f in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if getattr(config, name) == defaults[name]}


def own_settings(config: QueriesFlags, settings: type[T]) -> T:
    """The settings of a recipe other than SPR: a dataclass, whose fields are each a `setting`, made of the
    recipe's section of ``--spr_recipe_config``. UserError names what is unknown or makes no sense.
    """
    where = f"--spr_recipe_config {config.spr_recipe_config}: {config.spr_recipe}"
    return settings(**_read(recipe_settings(config)[1], kinds_of(settings), where))


def _read(section: Values, kinds: dict[str, Kind], where: str) -> Values:
    """A section's values by their kinds, checked like flags."""
    if unknown := sorted(map(str, section.keys() - kinds.keys())):
        raise UserError(f"{where}: {', '.join(unknown)} is no setting; it takes {', '.join(sorted(kinds))}")
    values = {
        name: kinds[name].read(_listed(kinds[name], value), f"{where}: {name}")
        for name, value in section.items()
    }
    for name, value in values.items():
        kinds[name].check(value, f"{where}: {name}")
    return values


def _listed(kind: Kind, value: object) -> object:
    """A setting that takes several may be given as one."""
    return [value] if kind.many and isinstance(value, (str, int, float)) else value


def shaping(config: AllFlags) -> dict[str, Values]:
    """Stage → flag → value of what shapes its records, in the order of the stages."""
    values = {f: getattr(config, f.name) for f in dataclasses.fields(config)}
    files = {"spr_dpo_config": dpo_settings(config)[1], "spr_recipe_config": recipe_settings(config)[1]}
    values |= {f: files[f.name] for f in values if f.name in files}
    return {
        stage: {f.name: value for f, value in values.items() if f.metadata["shapes"] == stage}
        for stage in STAGES
    }
