"""Referring expression comprehension: an expression and a picture in, one box out (RefCOCO, RefCOCO+, RefCOCOg; Ferret's protocol).

A prediction is the first readable box of the answer, in the model's own coordinate space, without clipping. It hits at threshold t if its IoU
with the truth is at least t. An answer without a readable box has IoU 0, stays in the denominator, and counts as a parse failure.
"""

from collections.abc import Mapping, Sequence

from spr_plugin.boxes import Box, Space, iou
from spr_plugin.eval_tasks import fields, metrics, questions
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.formats import BoxFormat, Parsed

FIELDS = {"expression": fields.text, "bbox": fields.box}
NO_BOX = "no_box"


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The question about the document's expression in the words of the model's family."""
    expression = doc["expression"]
    if doc["box_format"] == "ferret":
        expression = questions.without_commas(expression)
    return questions.ask(questions.EXPRESSION, doc["box_format"], lmms_eval_specific_kwargs, expression=expression)


def doc_to_target(doc: dict) -> str:
    """The true box as the model would write it; what a perfect model says."""
    return named_format(doc["box_format"]).render([("", true_box(doc, doc["bbox"]))])


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → the payload of each metric (:mod:`metrics`). Pure, and never raises."""
    form = named_format(doc["box_format"])
    parsed = form.parse(answer_text(results), doc["width"], doc["height"])
    predicted = parsed.boxes[0].pixels() if parsed.boxes else None
    ceiling = rounded_iou(form, true_box(doc, doc["bbox"]))
    item = metrics.box_item(doc["id"], [doc["bbox"]], predicted, failure(parsed), len(parsed.boxes), ceiling)
    return metrics.box_payloads(doc, [item])


# --- shared with the other protocols


def answer_text(results: Sequence) -> str:
    """What lmms-eval hands to ``process_results`` → the answer; "" for anything that is no text."""
    return results[0] if results and isinstance(results[0], str) else ""


def failure(parsed: Parsed) -> str | None:
    """Why an answer has no readable box, or None where it has one."""
    return None if parsed.boxes else next(iter(parsed.failures), NO_BOX)


def true_box(doc: Mapping, corners: Sequence[float]) -> Box:
    """A document's box with its space."""
    return Box(*corners, Space.pixels(doc["width"], doc["height"]))


def rounded_iou(form: BoxFormat, truth: Box) -> float:
    """IoU with `truth` of what a model reaches that writes the truth itself, rounded as its family's text is."""
    read = form.parse(form.render([("", truth)]), truth.space.width, truth.space.height).boxes
    return iou(read[0].to(truth.space), truth) if read else 0.0
