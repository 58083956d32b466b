"""Grounded region descriptions, the paper's own subject: boxes and phrases of a free description against the
annotated objects.

Documents come from COCO JSON (COCO, LVIS, Objects365 layout): SPR_DATA_ROOT/FOLDER/SPLIT.json with pictures
in FOLDER/images. A region is grown in each picture as in the method (:mod:`spr_plugin.recipes.spr.regions`,
seed 0), and the question is the method's plain prompt.

Boxes of the answer and objects of the region are matched one to one for the largest sum of IoU; pairs of IoU
≥ 0.5 count. Sums run over all regions, never over means of regions:

``precision``         matched boxes / boxes of the answer
``recall``            matched boxes / objects
``phrase_precision``  as precision, only pairs whose phrase names the object
``phrase_recall``     as recall, only such pairs
``mIoU``              sum of the matched IoU / objects
``parse_failure``     answers without a readable box, or with coordinates that cannot be read
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from spr_plugin.boxes import finite, iou_matrix
from spr_plugin.data.annotations import CocoImages
from spr_plugin.data.pictures import REASONS
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import fields, metrics
from spr_plugin.eval_tasks.answers import answer_text, true_box
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.loading import read_json
from spr_plugin.recipes.spr.prompts import plain_question
from spr_plugin.recipes.spr.regions import region_queries

FIELDS = {"region": fields.box, "objects": fields.listed(label=fields.text, bbox=fields.box)}
KINDS = (".json",)
MATCH = 0.5
_WORD = re.compile(r"\w+")


def read(file: Path) -> Iterator[tuple[dict, str]]:
    """A record a picture with enough objects, and the words that name it. Pictures lie in ``images`` beside
    the file.

    Raises UserError where a picture is missing or does not open, or a box has a number that is none: figures
    of a part of the set would pass for those of the whole.
    """
    _check_boxes(file)
    folder, skipped = file.parent / "images", Counter()
    images = list(CocoImages(str(file), str(folder), skipped))
    if lost := sum(skipped[reason] for reason in (*REASONS, "size_mismatch")):
        raise UserError(
            f"{file}: {lost} of its pictures are missing under {folder} or do not open, or have another size"
        )
    for query in region_queries(images, seed=0, skipped=skipped):
        objects = [
            {"label": annotation.label, "bbox": list(annotation.box.xyxy)} for annotation in query.truth
        ]
        image, region = query.image, list(query.region.xyxy)
        record = {
            "id": query.id,
            "image": image.path,
            "image_id": image.id,
            "width": image.width,
            "height": image.height,
        }
        yield {**record, "region": region, "objects": objects}, f"{file}, picture {image.id}"


def _check_boxes(file: Path) -> None:
    """UserError for the first annotation whose box is none on its picture; those under a pixel pass."""
    table: Any = read_json(file, str(file))
    images = table.get("images") if isinstance(table, dict) else None
    rows = table.get("annotations") if isinstance(table, dict) else None
    sizes: dict[Any, Any] = (
        {
            row["id"]: (row.get("width"), row.get("height"))
            for row in images
            if isinstance(row, dict) and isinstance(row.get("id"), (int, str))
        }
        if isinstance(images, list)
        else {}
    )
    for row in rows if isinstance(rows, list) else ():
        box = row.get("bbox") if isinstance(row, dict) else None
        if not isinstance(box, list) or len(box) != 4:
            continue  # counted where the file is read
        named = f"{file}, annotation {row.get('id')}"
        if not finite(box):
            raise UserError(f"{named}: its bbox holds a number that is not finite")
        if (
            not isinstance(size := sizes.get(row.get("image_id"), ()), tuple)
            or not finite(size)
            or len(size) != 2
        ):
            raise UserError(
                f'{named}: its image_id {row.get("image_id")!r} is no picture\'s; 1 and "1" are two'
            )
        x, y, width, height = box
        small = 0 <= min(width, height) < fields.SMALLEST and max(box) > fields.SMALLEST
        try:
            _ = small or fields.box([x, y, x + width, y + height], size)
        except ValueError as error:
            raise UserError(f"{named}: its bbox {box} {error}") from None


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The method's plain prompt, or the one of the task's YAML with ``{region}`` in it."""
    form, region = named_format(doc["box_format"]), true_box(doc, doc["region"])
    prompt = (lmms_eval_specific_kwargs or {}).get("prompt")
    return prompt.replace("{region}", form.write(region)) if prompt else plain_question(region, form)


def doc_to_target(doc: dict) -> str:
    """All objects of the region with their boxes."""
    form = named_format(doc["box_format"])
    return form.render([(each["label"], true_box(doc, each["bbox"])) for each in doc["objects"]])


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → payloads. Pure, and never raises."""
    parsed = named_format(doc["box_format"]).parse(answer_text(results), doc["width"], doc["height"])
    written = [(mention.phrase, box.pixels()) for mention in parsed.mentions for box in mention.boxes]
    pairs = matched([box for _, box in written], [each["bbox"] for each in doc["objects"]])
    named = sum(names(written[index][0], doc["objects"][object]["label"]) for index, object, _ in pairs)
    boxes, objects = float(len(written)), float(len(doc["objects"]))
    sums = {
        "precision": (float(len(pairs)), boxes),
        "recall": (float(len(pairs)), objects),
        "mIoU": (sum(overlap for _, _, overlap in pairs), objects),
        "phrase_precision": (float(named), boxes),
        "phrase_recall": (float(named), objects),
        "parse_failure": (float(not written or bool(parsed.failures)), 1.0),
    }
    payloads = {
        name: {
            "id": doc["id"],
            "image": doc["image_id"],
            "score": total / weight if weight else 0.0,
            "n": weight,
        }
        for name, (total, weight) in sums.items()
    }
    return {**payloads, metrics.DETAILS: metrics.detail(doc, [{"id": doc["id"], "figures": sums}])}


def matched(boxes: list, truths: list) -> list[tuple[int, int, float]]:
    """(place in `boxes`, place in `truths`, IoU) of each pair of the best one-to-one matching with IoU of at
    least `MATCH`.
    """
    if not boxes:
        return []
    overlaps = iou_matrix(boxes, truths)
    overlaps = np.where(overlaps >= MATCH, overlaps, 0.0)
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [
        (int(row), int(column), float(overlaps[row, column]))
        for row, column in zip(rows, columns)
        if overlaps[row, column] > 0
    ]


def names(phrase: str, label: str) -> bool:
    """Whether `phrase` holds the words of `label` one after the other, in any case; a final s of either's
    last word is no difference.
    """
    words, wanted = _words(phrase), _words(label)
    return (
        any(words[start : start + len(wanted)] == wanted for start in range(len(words) - len(wanted) + 1))
        if wanted
        else False
    )


def _words(text: str) -> list[str]:
    return [word.removesuffix("s") for word in _WORD.findall(text.lower())]
