"""Which box format the evaluated model speaks. Decided once, when a task loads, and never from the model's
answers.

In this order: the variable ``SPR_BOX_FORMAT``; ``spr_box`` in the checkpoint's config.json (the SPR stage
writes it); the model family together with how its config and image processor prepare pictures; else the run
is refused. Nothing is guessed: a wrong space gives plausible, wrong figures.
"""

import functools
from collections.abc import Mapping

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.eval_tasks.running import image_processor, model_config, running_models
from spr_plugin.formats import BoxFormat, box_format, refuse_unknown_aspect
from spr_plugin.formats.families import FAMILY_OF_CLASS, FAMILY_OF_TYPE, family_of

VARIABLE = "SPR_BOX_FORMAT"
HINT = f"set {VARIABLE}=family or family:aspect, for example llava:pad or ferret"


@functools.cache
def named_format(name: str) -> BoxFormat:
    """``"family"`` or ``"family:aspect"`` → the format object. Raises UserError for an unknown family."""
    family, _, aspect = name.partition(":")
    return box_format(family, aspect or None)


def given_format(name: str, named_by: str) -> BoxFormat:
    """:func:`named_format` of a name that a person gave: UserError for an aspect too that the family has
    not.
    """
    form = named_format(name)
    if aspect := name.partition(":")[2]:
        refuse_unknown_aspect(form.family, aspect, named_by)
    return form


def running_format(environ: Mapping[str, str]) -> str:
    """The name (see :func:`named_format`) of the box format of the model that this process evaluates; refuses
    if there is none.

    Where several models are alive they must agree, as nothing says which of them the task will run on.
    """
    if name := variable_format(environ):
        return name
    formats = _formats(running_models())
    if len(formats) > 1:
        formats = _formats(running_models(collect=True))
    if len(formats) > 1:
        refuse(
            f"the models in this process differ in box format ({'; '.join(str(name) for name in formats)});"
            f" {HINT}"
        )
    name, source = next(iter(formats.items()), (None, "no model was built before the tasks were loaded"))
    if name is None:
        refuse(f"the model's box format is unknown: {source}; {HINT}")
    return _checked(name, source)


def variable_format(environ: Mapping[str, str]) -> str | None:
    """The name that the variable gives; refuses one that is none. None where it is not set."""
    if not (name := environ.get(VARIABLE)):
        return None
    try:
        given_format(name, VARIABLE)
    except UserError as error:
        refuse(f"{VARIABLE} is {name}: {error}")
    return name


def config_format(config: Mapping | None, processor: object = None) -> tuple[str | None, str]:
    """A checkpoint's config.json and image processor → (format name or None, where it comes from or why there
    is none).
    """
    if config is None:
        return None, "the model has no config"
    recorded, model_type = config.get("spr_box"), str(config.get("model_type"))
    if recorded is not None:
        return _recorded_format(recorded), "spr_box in config.json"
    by_class = [
        FAMILY_OF_CLASS[name] for name in config.get("architectures") or () if name in FAMILY_OF_CLASS
    ]
    family = by_class[0] if by_class else FAMILY_OF_TYPE.get(model_type)
    if family:
        return (
            family + (_pixel_limits(processor) if family_of(family).resized else ""),
            "model_type in config.json",
        )
    if model_type.startswith("llava"):
        return _llava_format(config, processor, model_type)
    return None, f"config.json has no spr_box, and its model_type is {model_type}"


def _llava_format(config: Mapping, processor: object, model_type: str) -> tuple[str | None, str]:
    """LLaVA's family: the padded square, or the whole picture where all of it reaches the model; a centre
    crop is refused.
    """
    aspect = config.get("image_aspect_ratio") or ("anyres" if config.get("image_grid_pinpoints") else None)
    source = f"model_type {model_type}, image_aspect_ratio {aspect} in config.json"
    if aspect == "pad" or (aspect is None and getattr(processor, "do_pad", False)):
        return "llava:pad", source
    if str(aspect).startswith("anyres"):
        return "llava:anyres", source
    if processor is not None and not crops(processor):
        return "llava:square", f"{source}, and a processor that squeezes the picture"
    return (
        None,
        (
            f"config.json has no spr_box, its {source[: -len(' in config.json')]}, and the image processor"
            " cuts the picture's edges off"
        ),
    )


def _pixel_limits(processor: object) -> str:
    """``:min-max`` of a Qwen2-VL image processor (lmms-eval sets its own), or "" where they are not known."""
    size = dict(getattr(processor, "size", None) or {})
    low, high = (
        getattr(processor, name, None) or size.get(key)
        for name, key in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
    )
    return f":{low}-{high}" if isinstance(low, int) and isinstance(high, int) else ""


def crops(processor: object) -> bool:
    """Whether an image processor of CLIP's kind cuts a picture to its middle: the shorter side is resized,
    the longer cut.
    """
    size = getattr(processor, "size", None) or {}
    return bool(getattr(processor, "do_center_crop", False)) and "shortest_edge" in dict(size)


def _recorded_format(recorded: object) -> str:
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("family"), str):
        refuse(
            f"spr_box in config.json is not a record of family, space and aspect: {recorded!r:.80}; {HINT}"
        )
    name = f"{recorded['family']}:{recorded.get('aspect') or ''}".rstrip(":")
    _checked(name, "spr_box in config.json")
    space = named_format(name).describe()["space"]
    if recorded.get("space", space) != space:
        refuse(
            f"spr_box in config.json says space {recorded['space']}, but {name} is {space} in this version;"
            f" {HINT}"
        )
    return name


def _checked(name: str, source: str) -> str:
    try:
        named_format(name)
    except UserError as error:
        refuse(f"{source} is {name}: {error}")
    return name


def _formats(models: list) -> dict[str | None, str]:
    """Each distinct format name of the models, None included → where it comes from."""
    configs = [(model_config(model), image_processor(model)) for model in models]
    return dict(
        config_format(None if config is None else config.to_dict(), processor)
        for config, processor in configs
    )
