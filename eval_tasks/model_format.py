"""Which box format the evaluated model speaks. Decided once, when a task loads, and never from the model's answers.

In this order: the variable ``SPR_BOX_FORMAT``; ``spr_box`` in the checkpoint's config.json (the SPR stage writes it); the model family
together with how its config prepares pictures; else the run is refused. Nothing is guessed: a wrong space gives plausible, wrong figures.
"""

import functools
from collections.abc import Mapping

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.eval_tasks.running import model_config, running_models
from spr_plugin.formats import BoxFormat, box_format

VARIABLE = "SPR_BOX_FORMAT"
HINT = f"set {VARIABLE}=family or family:aspect, for example llava:pad or ferret"


@functools.lru_cache(maxsize=None)
def named_format(name: str) -> BoxFormat:
    """``"family"`` or ``"family:aspect"`` → the format object. Raises UserError for an unknown family."""
    family, _, aspect = name.partition(":")
    return box_format(family, aspect or None)


def running_format(environ: Mapping[str, str]) -> str:
    """The name (see :func:`named_format`) of the box format of the model that this process evaluates; refuses if there is none.

    Where several models are alive they must agree, as nothing says which of them the task will run on.
    """
    if environ.get(VARIABLE):
        return _checked(environ[VARIABLE], VARIABLE)
    found = _formats(running_models())
    if len(found) > 1:
        found = _formats(running_models(collect=True))
    if len(found) > 1:
        refuse(f"the models in this process differ in box format ({'; '.join(str(name) for name in found)}); {HINT}")
    name, source = next(iter(found.items()), (None, "no model was built before the tasks were loaded"))
    if name is None:
        refuse(f"the model's box format is unknown: {source}; {HINT}")
    return _checked(name, source)


def config_format(config: Mapping | None) -> tuple[str | None, str]:
    """A checkpoint's config.json → (format name or None, where it comes from or why there is none)."""
    if config is None:
        return None, "the model has no config"
    family_name, aspect = str(config.get("model_type")), config.get("image_aspect_ratio")
    recorded = config.get("spr_box")
    if recorded is not None:
        return _recorded_format(recorded), "spr_box in config.json"
    if family_name.startswith("llava") and aspect == "pad":
        return "llava:pad", "model_type and image_aspect_ratio in config.json"
    return None, f"config.json has no spr_box, and its model_type is {family_name}, image_aspect_ratio {aspect}"


def _recorded_format(recorded: object) -> str:
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("family"), str):
        refuse(f"spr_box in config.json is not a record of family, space and aspect: {recorded!r:.80}; {HINT}")
    name = f"{recorded['family']}:{recorded.get('aspect') or ''}".rstrip(":")
    _checked(name, "spr_box in config.json")
    space = named_format(name).describe()["space"]
    if recorded.get("space", space) != space:
        refuse(f"spr_box in config.json says space {recorded['space']}, but {name} is {space} in this version; {HINT}")
    return name


def _checked(name: str, source: str) -> str:
    try:
        named_format(name)
    except UserError as error:
        refuse(f"{source} is {name}: {error}")
    return name


def _formats(models: list) -> dict[str | None, str]:
    """Each distinct format name of the models, None included → where it comes from."""
    configs = [model_config(model) for model in models]
    return dict(config_format(None if config is None else config.to_dict()) for config in configs)
