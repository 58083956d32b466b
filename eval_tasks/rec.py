"""Referring expression comprehension: an expression and a picture in, one box out (RefCOCO, RefCOCO+,
RefCOCOg; Ferret's protocol).

A prediction is the first box that the answer writes, in the model's own coordinate space, without clipping.
It hits at threshold t if its IoU with the truth is at least t. Where the first one cannot be read, or there
is none, the answer has IoU 0, stays in the
denominator, and counts as a parse failure: no later box stands in for it.

``ferret_Acc@t``: the same by Ferret's own rule (:mod:`ferret`), of models that write as Ferret does.
"""

import numpy as np

from spr_plugin.eval_tasks import ferret, fields, metrics, questions
from spr_plugin.eval_tasks.answers import NO_BOX, answer_text, first_box, rounded_iou, true_box
from spr_plugin.eval_tasks.model_format import named_format

FIELDS = {"expression": fields.text, "bbox": fields.box}


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The question about the document's expression in the words of the model's family."""
    expression = doc["expression"]
    if doc["box_format"] == "ferret":
        expression = questions.without_commas(expression)
    return questions.ask(
        questions.EXPRESSION, doc["box_format"], lmms_eval_specific_kwargs, expression=expression
    )


def doc_to_target(doc: dict) -> str:
    """The true box as the model would write it; what a perfect model says."""
    return named_format(doc["box_format"]).render([("", true_box(doc, doc["bbox"]))])


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → the payload of each metric (:mod:`metrics`). Pure, and never raises."""
    form = named_format(doc["box_format"])
    answer = answer_text(results)
    parsed = form.parse(answer, doc["width"], doc["height"])
    first = first_box(parsed, answer)
    reason = None if first else next(iter(parsed.failures), NO_BOX)
    ceiling = rounded_iou(form, true_box(doc, doc["bbox"]))
    item = metrics.box_item(
        doc["id"], [doc["bbox"]], first.pixels() if first else None, reason, len(parsed.boxes), ceiling
    )
    payloads = metrics.box_payloads(doc, [item])
    if ferret.speaks(doc["box_format"]):
        overlap = ferret.expression_iou(answer, doc)
        for name, threshold in zip(metrics.FERRET_ACCURACIES, metrics.THRESHOLDS):
            payloads[name] = metrics.payload(doc, [float(overlap >= np.float32(threshold))])
    return payloads
