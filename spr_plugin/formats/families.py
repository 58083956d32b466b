"""What is known of each model family: how it writes boxes, which checkpoints are of it, and in which words it
was asked.

A new family is one entry here. Its words are those of its own training data or published evaluation, as far
as they are known; a family without any gets LLaVA's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.bracket import cogvlm, ferret, llava, shikra
from spr_plugin.formats.listed import qwen2_5_vl, qwen3_vl
from spr_plugin.formats.tagged import internvl, kosmos2, qwen_vl


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        form: aspect (how the picture reaches the model, or None) → its box format.
        model_types: of the config.json of its checkpoints. LLaVA and its descendants come apart, as their
            space depends on the picture's preparation.
        classes: the same by architecture, for checkpoints whose config names no model_type of their own.
        resized: boxes are in pixels of the picture as its processor resizes it, whose limits (MIN-MAX pixels)
            are the aspect.
        boxes: how a description is asked for with boxes.
        before: what every question begins with.
        expression: the question that grounds ``{expression}``.
        phrases: the question that grounds the ``{phrases}`` of a caption.
    """

    form: Callable[[str | None], BoxFormat]
    model_types: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    resized: bool = False
    boxes: str = "with their bounding boxes"
    before: str = ""
    expression: str = (
        "Please provide the bounding box coordinate of the region this sentence describes: {expression}."
    )
    phrases: str = "What are the locations of {phrases}?"  # Ferret's


_QWEN = Family(
    qwen2_5_vl,
    model_types=("qwen2_5_vl",),
    resized=True,
    boxes="and report their bbox coordinates and labels in JSON format",
    expression="Locate {expression}, output its bbox coordinates using JSON format.",
    phrases="Locate {phrases}, output the bbox coordinates and labels using JSON format.",
)
FAMILIES = {
    "llava": Family(llava),
    "ferret": Family(
        lambda aspect: ferret(),
        model_types=("ferret_llama",),
        classes=("FerretLlamaForCausalLM", "FERRETLlamaForCausalLM"),
        expression="What is the location of {expression} in the image?",
    ),
    "shikra": Family(
        lambda aspect: shikra(),
        classes=("ShikraLlamaForCausalLM",),
        boxes="and include the coordinates [x0,y0,x1,y1] for each mentioned object",
        expression="Where is {expression}? answer in [x0,y0,x1,y1] format.",
    ),
    "cogvlm": Family(
        lambda aspect: cogvlm(),
        model_types=("cogvlm",),
        classes=("CogVLMForCausalLM",),
        boxes="and include the coordinates [[x0,y0,x1,y1]] for each mentioned object",
        expression="Where is {expression}? answer in [[x0,y0,x1,y1]] format.",
    ),
    "qwen-vl": Family(
        lambda aspect: qwen_vl(),
        model_types=("qwen",),
        boxes="in English with grounding",
        expression="<ref>{expression}</ref><box>",
    ),
    "qwen2.5-vl": _QWEN,
    "qwen3-vl": replace(
        _QWEN, form=lambda aspect: qwen3_vl(), model_types=("qwen3_vl", "qwen3_vl_moe"), resized=False
    ),
    "internvl": Family(
        lambda aspect: internvl(),
        model_types=("internvl", "internvl_chat"),
        expression=(
            "Please provide the bounding box coordinate of the region this sentence describes: "
            "<ref>{expression}</ref>"
        ),
    ),
    "kosmos-2": Family(
        lambda aspect: kosmos2(),
        model_types=("kosmos-2",),
        before="<grounding>",
        expression="<grounding><phrase> {expression}</phrase>",
    ),
}
FAMILY_OF_TYPE = {kind: name for name, family in FAMILIES.items() for kind in family.model_types}
FAMILY_OF_CLASS = {kind: name for name, family in FAMILIES.items() for kind in family.classes}


def family_of(name: str) -> Family:
    """The family of this name; for a plugin's one with LLaVA's words."""
    return FAMILIES.get(name, FAMILIES["llava"])
