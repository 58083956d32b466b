"""What each model family is asked: the words of its own training data or published evaluation, as far as they
are known.

A family without words of its own gets those of "llava". `{…}` are filled literally, so braces in an
expression stay.
"""

from collections.abc import Mapping

from spr_plugin.formats.families import FAMILIES

EXPRESSION = {name: family.expression for name, family in FAMILIES.items()}
PHRASES = {name: family.phrases for name, family in FAMILIES.items()}
CLASS = {"llava": "Is the object {location} of the image a {first} or a {second}?"}  # Ferret's
CAPTION = {"llava": "Please provide a short description for this region: {region}."}  # LLaVA's


def ask(questions: Mapping[str, str], box_format: str, given: Mapping | None, **parts: str) -> str:
    """The question for a document: that of the model's family, or the non-empty ``prompt`` of the task's
    YAML.

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
