"""Phrase grounding on Flickr30k Entities: all phrases of a caption in one question, a box or more for each
(Ferret's protocol).

A phrase is found in the answer where the words before a box equal it, without case, punctuation and leading
articles. All boxes written at all such places are its prediction; where several phrases have the same words,
the k-th takes the k-th place (or the last there is). Where the first box of a prediction that is written
cannot be read, it is wrong and counted, whatever comes after it. It is judged several ways:

``Acc@t``, ``mIoU``    MERGED-BOXES: the box around all predictions against the box around all truths
                       (Ferret, Shikra, UniTAB)
``first_Acc@t``        the same, with the first box alone as the prediction
``any_Acc@t``          ANY-BOX: the first box against each truth, the best counts
``ferret_R@1``         MERGED-BOXES by Ferret's own rule (:mod:`ferret`), of models that write as Ferret does

A phrase that the answer does not ground is a miss. Only phrases with a box are asked and count:
``notvisual``, whole-scene and no-box ones never become part of a document
(:mod:`spr_plugin.eval_tasks.releases`).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from spr_plugin.eval_tasks import ferret, fields, metrics, questions
from spr_plugin.eval_tasks.answers import Grounding, answer_text, failure, groundings, rounded_iou, true_box
from spr_plugin.eval_tasks.model_format import named_format

FIELDS = {
    "caption": fields.text,
    "phrases": fields.listed(id=fields.text, phrase=fields.text, boxes=fields.boxes),
}
NOT_GROUNDED = "phrase_not_grounded"
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_LEADING = re.compile(r"\A(?:(?:and|or|with|a|an|the|some|one)\s+)*")

Corners = Sequence[float]


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """One question about all phrases of the caption, in its order, repeats kept."""
    asked = ", ".join(questions.without_commas(phrase["phrase"]).lower() for phrase in doc["phrases"])
    return questions.ask(questions.PHRASES, doc["box_format"], lmms_eval_specific_kwargs, phrases=asked)


def doc_to_target(doc: dict) -> str:
    """What a perfect model says: each phrase with the box around all its truths."""
    form = named_format(doc["box_format"])
    return form.render(
        [
            (questions.without_commas(p["phrase"]).lower(), true_box(doc, merged(p["boxes"])))
            for p in doc["phrases"]
        ]
    )


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → payloads, a sample a phrase. Pure, and never raises."""
    form = named_format(doc["box_format"])
    answer = answer_text(results)
    parsed = form.parse(answer, doc["width"], doc["height"])
    by_phrase: dict[str, list[Grounding]] = {}
    for grounding in groundings(parsed, answer):
        by_phrase.setdefault(plain(grounding.phrase), []).append(grounding)
    items, first, any_box = [], [], []
    for phrase, predicted in zip(
        doc["phrases"], _predictions([plain(phrase["phrase"]) for phrase in doc["phrases"]], by_phrase)
    ):
        unread = predicted[0].reason if predicted else failure(parsed) or NOT_GROUNDED
        boxes = [] if unread else [box.pixels() for grounding in predicted for box in grounding.boxes]
        truth, reason = merged(phrase["boxes"]), unread
        ceiling = rounded_iou(form, true_box(doc, truth))
        box = merged(boxes) if boxes else None
        item = metrics.box_item(phrase["id"], [truth], box, reason, len(boxes), ceiling)
        items.append({**item, "phrase": phrase["phrase"]})  # the question names them all
        lone = boxes[0] if boxes else None
        first.append(metrics.box_item(phrase["id"], [truth], lone, reason, len(boxes))["iou"])
        any_box.append(metrics.box_item(phrase["id"], phrase["boxes"], lone, reason, len(boxes))["iou"])
    payloads = metrics.box_payloads(doc, items)
    for name, overlaps in (("first", first), ("any", any_box)):
        for threshold in metrics.THRESHOLDS:
            payloads[f"{name}_Acc@{threshold}"] = metrics.payload(
                doc, [float(overlap >= threshold) for overlap in overlaps]
            )
    if ferret.speaks(doc["box_format"]):
        payloads["ferret_R@1"] = metrics.payload(doc, [float(hit) for hit in ferret.phrase_hits(answer, doc)])
    return payloads


def _predictions(asked: Sequence[str], by_phrase: Mapping[str, list[Grounding]]) -> Iterator[list[Grounding]]:
    """The groundings that each asked phrase gets."""
    times, turns = Counter(asked), Counter()
    for words in asked:
        written = by_phrase.get(words, [])
        yield written if times[words] == 1 else written[turns[words] :][:1] or written[-1:]
        turns[words] += 1


def merged(boxes: Sequence[Corners]) -> list[float]:
    """The box around all `boxes`, xyxy."""
    # Boxes → all left edges, all upper ones, …
    x1, y1, x2, y2 = zip(*boxes)
    return [min(x1), min(y1), max(x2), max(y2)]


def plain(phrase: str) -> str:
    """A phrase as it is compared: lower case, no punctuation, single spaces, no leading articles."""
    words = " ".join(_PUNCTUATION.sub("", phrase.lower()).split())
    return _LEADING.sub("", words, count=1) or words
