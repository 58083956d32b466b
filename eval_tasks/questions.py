"""What each model family is asked: the words of its own training data or published evaluation, as far as they are known.

A family without words of its own gets those of "llava". `{…}` are filled literally, so braces in an expression stay.
"""

from collections.abc import Mapping

# What grounds an expression. Ferret's, LLaVA's, InternVL's, Qwen-VL's, Shikra's and CogVLM's are from their evaluation code or data.
EXPRESSION = {
    "llava": "Please provide the bounding box coordinate of the region this sentence describes: {expression}.",
    "ferret": "What is the location of {expression} in the image?",
    "shikra": "Where is {expression}? answer in [x0,y0,x1,y1] format.",
    "cogvlm": "Where is {expression}? answer in [[x0,y0,x1,y1]] format.",
    "qwen-vl": "<ref>{expression}</ref><box>",
    "qwen2.5-vl": "Locate {expression}, output its bbox coordinates using JSON format.",
    "qwen3-vl": "Locate {expression}, output its bbox coordinates using JSON format.",
    "internvl": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{expression}</ref>",
    "kosmos-2": "<grounding><phrase> {expression}</phrase>",
}
# Ferret's question, one a caption; its phrases are lower-case and without commas.
PHRASES = {
    "llava": "What are the locations of {phrases}?",
    "qwen2.5-vl": "Locate {phrases}, output the bbox coordinates and labels using JSON format.",
    "qwen3-vl": "Locate {phrases}, output the bbox coordinates and labels using JSON format.",
}
CLASS = {"llava": "Is the object {location} of the image a {first} or a {second}?"}  # Ferret's
CAPTION = {"llava": "Please provide a short description for this region: {region}."}  # LLaVA's


def ask(questions: Mapping[str, str], box_format: str, given: Mapping | None, **parts: str) -> str:
    """The question for a document: that of the model's family, or the non-empty ``prompt`` of the task's YAML.

    Args:
        questions: one of the tables above.
        box_format: the document's "family" or "family:aspect".
        given: the ``lmms_eval_specific_kwargs``.
    """
    family = box_format.partition(":")[0]
    text = (given or {}).get("prompt") or questions.get(family) or questions["llava"]
    for name, value in parts.items():
        text = text.replace("{" + name + "}", value)
    return text


def without_commas(text: str) -> str:
    """Ferret's questions have none, as its answers are cut at them."""
    return text.replace(",", "")
