"""Referring object classification on LVIS: which of two classes is the object at a box or a point? (Ferret's
protocol; chance is 50 %.)

The true class is named first in documents of even place, second in the others (``truth_first``, set when the
documents are made).

``ferret_accuracy``  Ferret's own rule (:mod:`ferret`). Naming both classes is a hit, "a notebook." is a miss
``accuracy``         the same, but a name with brackets is one name
``strict_accuracy``  the true class or a synonym as whole words in any case, and the other class not
"""

import re

from spr_plugin.eval_tasks import ferret, fields, metrics, questions
from spr_plugin.eval_tasks.answers import answer_text, true_box
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.formats import BoxFormat

FIELDS = {
    "bbox": fields.box,
    "point": fields.point,
    "name": fields.text,
    "synonyms": fields.texts_or_none,
    "negative": fields.text,
    "truth_first": fields.flag,
}
# White space and "no…" up to the next comma or dot; where the text ends first, it stays.
_DENIED = re.compile(r"(?<!\s)\s+no[^,.]*([,.]|\Z)")
_NUMBER = re.compile(r"\d*\.?\d+")


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The question, its location written as the model's family writes one."""
    form = named_format(doc["box_format"])
    location = form.write(true_box(doc, doc["bbox"])) if doc["location"] == "box" else point_text(form, doc)
    classes = [spoken(doc["name"]), spoken(doc["negative"])]
    first, second = classes if doc["truth_first"] else classes[::-1]
    return questions.ask(
        questions.CLASS,
        doc["box_format"],
        lmms_eval_specific_kwargs,
        location=location,
        first=first,
        second=second,
    )


def doc_to_target(doc: dict) -> str:
    """The true class."""
    return spoken(doc["name"])


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → payloads. Pure, and never raises."""
    answer = answer_text(results)
    names = [spoken(name) for name in (doc["name"], *doc["synonyms"])]
    kept = _DENIED.sub(lambda denied: "" if denied[1] else denied[0], answer)
    accuracy = float(any(name in kept for name in names))
    strict = float(any(_says(answer, name) for name in names) and not _says(answer, spoken(doc["negative"])))
    hits = {"accuracy": accuracy, "strict_accuracy": strict}
    hits["ferret_accuracy"] = float(ferret.names(answer, doc["name"], doc["synonyms"]))
    item = {"id": doc["id"], "figures": {name: (hit, 1.0) for name, hit in hits.items()}}
    figures = {name: metrics.payload(doc, [hit]) for name, hit in hits.items()}
    return {**figures, metrics.DETAILS: metrics.detail(doc, [item])}


def point_text(form: BoxFormat, doc: dict) -> str:
    """``[x, y]`` in the family's numbers: those of a box without area at the point."""
    x, y = doc["point"]
    numbers = _NUMBER.findall(form.write(true_box(doc, (x, y, x, y))))
    return f"[{numbers[0]}, {numbers[1]}]"


def spoken(name: str) -> str:
    """An LVIS class name as it is asked: underscores are spaces."""
    return name.replace("_", " ")


def _says(answer: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", answer, re.IGNORECASE) is not None
