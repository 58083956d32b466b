"""Questions to be answered in a word or two: what a model can do besides grounding, and whether it sees what
is not there (POPE's way).

``accuracy``   the answer is the true one, without case and punctuation
``false_yes``  among questions whose true answer is No, those that were answered with Yes
"""

from spr_plugin.eval_tasks import fields, metrics
from spr_plugin.eval_tasks.answers import answer_text
from spr_plugin.eval_tasks.phrases import plain

FIELDS = {"question": fields.text, "answer": fields.text}


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The document's question."""
    return doc["question"]


def doc_to_target(doc: dict) -> str:
    """The true answer."""
    return doc["answer"]


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → payloads. Pure, and never raises."""
    answer, true = plain(answer_text(results)), plain(doc["answer"])
    right, negative = float(answer == true), float(true == "no")
    figures = {"accuracy": (right, 1.0), "false_yes": (negative * (answer == "yes"), negative)}
    return {
        "accuracy": metrics.payload(doc, [right]),
        "false_yes": metrics.payload(doc, [float(answer == "yes")] if negative else []),
        metrics.DETAILS: metrics.detail(doc, [{"id": doc["id"], "figures": figures}]),
    }
