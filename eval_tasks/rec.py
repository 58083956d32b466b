"""Referring expression comprehension: an expression and a picture in, one box out (RefCOCO, RefCOCO+, RefCOCOg; Ferret's protocol).

A prediction is the first readable box of the answer, in the model's own coordinate space, without clipping. It hits at threshold t if its IoU
with the truth is at least t. An answer without a readable box has IoU 0, stays in the denominator, and counts as a parse failure.
"""

from spr_plugin.eval_tasks import fields, metrics, questions
from spr_plugin.eval_tasks.answers import answer_text, failure, rounded_iou, true_box
from spr_plugin.eval_tasks.model_format import named_format

FIELDS = {"expression": fields.text, "bbox": fields.box}


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
