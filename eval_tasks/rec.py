"""Referring expression comprehension: an expression and a picture in, one box out.

A prediction is the first readable box of the answer, in the model's own coordinate space, without clipping. It hits at threshold t if its IoU
with the truth is at least t. An answer without a readable box has IoU 0, stays in the denominator, and counts as a parse failure.
"""

from PIL import Image, UnidentifiedImageError

from spr_plugin.boxes import Box, Space, iou
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.eval_tasks.refusal import refuse

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
NO_BOX = "no_box"


def doc_to_visual(doc: dict) -> list:
    """The document's picture as RGB. Refuses one that does not open or is not of the size the document says: its box would be off."""
    picture = doc["image"]
    try:
        picture = (Image.open(picture) if isinstance(picture, str) else picture).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        refuse(f"picture {doc['image_id']} of document {doc['id']} does not open: {error}")
    if picture.size != (doc["width"], doc["height"]):
        refuse(f"picture {doc['image_id']} of document {doc['id']} is {picture.size}, not {(doc['width'], doc['height'])}")
    return [picture]


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict) -> str:
    """The prompt of the running model's family (from the task's YAML) about the document's expression."""
    return lmms_eval_specific_kwargs["prompt"].replace("{expression}", doc["expression"])


def doc_to_target(doc: dict) -> str:
    """The true box as the model would write it, for logs only."""
    space = Space.pixels(doc["width"], doc["height"])
    return named_format(doc["box_format"]).write(Box(*doc["bbox"], space))


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → for each metric a record with the score and the ids that match samples of two runs. Pure, and never raises."""
    overlap, predicted, reason = judge(doc, results[0] if results and isinstance(results[0], str) else "")
    keys = {"id": doc["id"], "image": doc["image_id"]}
    scores = {f"Acc@{threshold}": {**keys, "score": float(overlap >= threshold)} for threshold in THRESHOLDS}
    scores["mIoU"] = {**keys, "score": overlap, "predicted": predicted}
    scores["parse_failure"] = {**keys, "score": float(predicted is None), "reason": reason}
    return scores


def judge(doc: dict, answer: str) -> tuple[float, list[float] | None, str | None]:
    """(IoU with the truth, the predicted box xyxy in pixels or None, why there is none or None)."""
    width, height = doc["width"], doc["height"]
    parsed = named_format(doc["box_format"]).parse(answer, width, height)
    if not parsed.boxes:
        return 0.0, None, next(iter(parsed.failures), NO_BOX)
    pixels = Space.pixels(width, height)
    predicted = parsed.boxes[0].to(pixels)
    return iou(predicted, Box(*doc["bbox"], pixels)), [round(value, 2) for value in predicted.xyxy], None


def mean_score(records: list[dict]) -> float:
    """Mean over samples of the records that :func:`process_results` returned for one metric."""
    return sum(record["score"] for record in records) / len(records)
