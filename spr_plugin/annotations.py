"""Pictures with object boxes: COCO-format JSON, or mined from a LLaVA data file's grounded conversations.

Single bad records never stop a run: each is left out and counted under its reason in the caller's `skipped` Counter. What raises
:class:`~spr_plugin.errors.UserError` is a file that is wrong as a whole.

Boxes refer to the pixels as stored in the file. EXIF orientation is not applied, because LLaVA opens pictures without it too.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from spr_plugin.boxes import Box, Space, finite, iou_matrix
from spr_plugin.coco_index import CocoIndex
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.hookspecs import hookimpl
from spr_plugin.pictures import BadImage, image_size, open_image  # noqa: F401 (for plugins' sources)
from spr_plugin.progress import say

SMALLEST = 1.0  # px; a box with a shorter side is no object that a description could name
PADDING_ROUNDING = 0.02  # boxes of two decimals, drawn a little beyond their picture
PADDING_ERRORS, PADDING_SURE = 0.05, 20  # share of boxes that may be wrong; number of boxes that decide
REC_QUESTION = re.compile(r"describes:\s*(.+?)\s*$", re.DOTALL)
REG_QUESTION = re.compile(r"\bdescri(?:be|ption)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Annotation:
    """One object.

    Attributes:
        id: unique within its picture.
        label: category name or phrase; never empty.
        box: in pixels of the picture, clipped to it.
        coarse: read back from rounded box text (half a step of LLaVA's is 3 px at 640 px), not annotated to the pixel.
    """

    id: int | str
    label: str
    box: Box
    coarse: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """A picture file with its objects. `width` and `height` are those stored in the file; `id` names the record in messages."""

    id: str
    path: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]


# --- COCO-format JSON: COCO, LVIS, Objects365


class CocoImages:
    """Pictures of a COCO file with at least one usable box, in the file's order, or any one by its number.

    Boxes are clipped to the picture. With `keep_crowd` groups and ignored objects are objects too. Left out and counted in `skipped`, as
    far as pictures are asked for: annotations as ``crowd``, ``ignored``, ``bad_box``, ``not_finite``, ``zero_area``, ``outside``,
    ``no_label``, ``duplicate_id``; pictures under `pictures.REASONS`, as ``size_mismatch`` (with the record),
    ``no_objects``; and of the whole file ``unknown_image``, ``bad_image_record``, ``duplicate_image_id``.
    Raises UserError where `file` is not COCO JSON.

    Attributes:
        ids: of all pictures of the file, usable or not.
    """

    def __init__(self, file: str, image_folder: str, skipped: Counter, keep_crowd: bool = False):
        self._index, self._folder, self._skipped, self._keep_crowd = CocoIndex(file, _is_image_record, skipped), image_folder, skipped, keep_crowd
        self._labels = {record.get("id"): _category(record.get("name")) for record in self._index.categories if isinstance(record, dict)}
        self.ids = [str(id) for id in self._index.ids]

    def image(self, number: int) -> AnnotatedImage | None:
        """The picture ``ids[number]``, or None, counted."""
        id = self._index.ids[number]
        rows = [row for row in self._index.annotations(id) if isinstance(row, dict)]
        return _coco_image(self._index.image(id), rows, self._labels, self._folder, self._skipped, self._keep_crowd)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return filter(None, map(self.image, range(len(self.ids))))


def _load_json(file: str, flag: str) -> object:
    try:
        with open(file, encoding="utf-8") as handle:
            return json.load(handle)
    except OSError as error:
        raise UserError(f"{flag} {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{flag} {file}: not JSON ({error})") from None


def _hashable(value: object) -> bool:
    return isinstance(value, (int, str))


def _is_image_record(record: object, skipped: Counter) -> bool:
    """Whether an ``images`` entry has an id, whole positive sizes and a file name."""
    good = isinstance(record, dict) and _hashable(record.get("id")) and bool(_file_name(record))
    good = good and all(isinstance(record.get(side), int) and record[side] > 0 for side in ("width", "height"))
    skipped.update([] if good else ["bad_image_record"])
    return good


def _file_name(record: dict) -> str:
    """``file_name``, or the end of LVIS's ``coco_url`` (``train2017/000000000009.jpg``)."""
    name = record.get("file_name") or "/".join(str(record.get("coco_url") or "").split("/")[-2:])
    return name if isinstance(name, str) else ""


def tails(folder: str, name: str) -> list[str]:
    """Paths in `folder` of ``images/v1/patch8/a.jpg``, ``v1/patch8/a.jpg`` … ``a.jpg``: as Objects365 and
    LVIS name files, and as they are unpacked."""
    parts = name.split("/")
    return [os.path.join(folder, "/".join(parts[first:])) for first in range(len(parts))]


def _coco_image(record: dict, rows: list[dict], labels: dict, folder: str, skipped: Counter, keep_crowd: bool) -> AnnotatedImage | None:
    """The picture of one record, or None, counted."""
    paths = tails(folder, _file_name(record))
    path = next(filter(os.path.exists, paths), paths[0])
    size = image_size(path)
    stated = (record["width"], record["height"])
    if size != stated:
        skipped[size if isinstance(size, str) else "size_mismatch"] += 1
        return None
    space = Space.pixels(*stated)
    found = [annotation for row in rows if (annotation := _coco_annotation(row, labels, space, skipped, keep_crowd))]
    annotations = {annotation.id: annotation for annotation in reversed(found)}
    if len(found) > len(annotations):
        skipped["duplicate_id"] += len(found) - len(annotations)
    if not annotations:
        skipped["no_objects"] += 1
        return None
    return AnnotatedImage(str(record["id"]), path, *stated, tuple(reversed(annotations.values())))


def _coco_annotation(row: dict, labels: dict, space: Space, skipped: Counter, keep_crowd: bool) -> Annotation | None:
    """The annotation of one row, or None, counted."""
    label = labels.get(row.get("category_id"), "") if _hashable(row.get("category_id")) else ""
    box = _coco_box(row, space, keep_crowd)
    reason = "no_label" if not label else box if isinstance(box, str) else None
    if reason:
        skipped[reason] += 1
        return None
    return Annotation(row["id"] if _hashable(row.get("id")) else f"{box.xyxy}", label, box)


def _coco_box(row: dict, space: Space, keep_crowd: bool) -> Box | str:
    """COCO's xywh as a box on the picture, or the reason why it is left out."""
    if not keep_crowd and (row.get("iscrowd") or row.get("ignore")):
        return "crowd" if row.get("iscrowd") else "ignored"
    numbers = row.get("bbox")
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(isinstance(n, (int, float)) for n in numbers):
        return "bad_box"
    x, y, width, height = map(float, numbers)
    if not all(map(math.isfinite, (x, y, width, height))):
        return "not_finite"
    if width <= 0 or height <= 0:
        return "zero_area"
    return usable(Box(x, y, x + width, y + height, space)) or "outside"


def usable(box: Box) -> Box | None:
    """`box` in pixels, clipped to its picture; None where less than a pixel of it lies there, or it is no number."""
    clipped = box.to(Space.pixels(box.space.width, box.space.height)).clip()
    return clipped if finite(clipped.xyxy) and min(clipped.width, clipped.height) >= SMALLEST else None


def _label(name: object) -> str:
    """A phrase without what box text is made of: brackets, tags and quotes, which would be read back as something else."""
    return " ".join(re.sub(r"[][<>{}()\"\\|]", " ", name).split()).strip(",.;: ") if isinstance(name, str) else ""


# Words of Objects365's category names as they are spelled in its files.
MISSPELT = {
    "moniter": "monitor", "bakset": "basket", "ballon": "balloon", "dinning": "dining", "extention": "extension", "hamimelon": "Hami melon",
    "mushroon": "mushroom", "measur": "measure", "campel": "camel", "buttefly": "butterfly", "noddles": "noodles", "teniis": "tennis",
}  # fmt: skip


def _category(name: object) -> str:
    """A category's name as a phrase: LVIS's ``bow_(decorative_ribbons)`` is a bow, Objects365's ``Moniter/TV`` a monitor."""
    first = re.split(r"_\(|/", name)[0] if isinstance(name, str) else ""
    return " ".join(MISSPELT.get(word.lower(), word) for word in _label(first.replace("_", " ")).split())


# --- LLaVA data files


def mine_conversations(file: str, image_folder: str, box_format: BoxFormat, skipped: Counter) -> Iterator[AnnotatedImage]:
    """Pictures with the boxes that a LLaVA data file's conversations name, one per picture file, in order of first appearance.

    Read are referring-expression turns (the answer is a box, the phrase is what the question ``describes: …``), region
    descriptions (the question holds one box, the answer is the phrase) and answers that hold phrases with boxes. `box_format`
    says how the file writes boxes; where it is 0-1 of the padded square, or of the picture, `check_padding` looks first whether the
    file's own boxes allow that. The same object found again (IoU >= 0.5 under one label, or >= 0.9 under any) is dropped.
    All annotations are `coarse`.

    Counted in `skipped`: ``no_image``, ``bad_record``, `pictures.REASONS`, ``no_phrase``, ``outside``,
    ``duplicate``, and the box format's parsing failures as ``box_malformed`` …. Raises UserError where `file`
    is no JSON list.
    """
    turns_by_image = _turns_by_image(file, skipped)
    check_padding(turns_by_image, image_folder, box_format, file)
    for name, turns in turns_by_image.items():
        path = os.path.join(image_folder, name)
        size = image_size(path)
        if isinstance(size, str):
            skipped[size] += 1
            continue
        found = [mention for question, answer in turns for mention in _mined(question, answer, *size, box_format, skipped)]
        if annotations := _annotations(found, skipped):
            yield AnnotatedImage(name, path, *size, annotations)


def check_padding(turns_by_image: dict, image_folder: str, box_format: BoxFormat, file: str, wanted: int = 200) -> None:
    """UserError where the first `wanted` boxes on clearly non-square pictures speak against the declared reading.

    On the padded square of a wide picture nothing lies in the stripes above and below it; boxes in 0-1 of the picture itself reach
    into them all the time. So one reading is refuted by boxes in the stripes, the other, given enough boxes, by their absence.
    """
    if box_format.space_name not in ("padded_square", "normalized"):
        return
    seen = list(islice(_beside_stripes(turns_by_image, image_folder, box_format), wanted))
    inside, padded = sum(seen), box_format.space_name == "padded_square"
    found = f"{inside} of {len(seen)} boxes on non-square pictures of --data_path {file} reach into the stripes that padding to a square adds"
    if 0 < len(seen) < PADDING_SURE:
        say(f"{found}: too few to tell whether they count padding, taken as {'pad' if padded else 'square'} (--spr_data_aspect)")
    elif padded and inside > PADDING_ERRORS * len(seen):
        raise UserError(f"{found}: they are no boxes of the padded square; say --spr_data_aspect square, or give boxes by --spr_annotations")
    elif seen and not padded and inside <= PADDING_ERRORS * len(seen):
        raise UserError(f"{found}: they are boxes of the padded square, as in LLaVA's own data; say --spr_data_aspect pad")


def _beside_stripes(turns_by_image: dict, image_folder: str, box_format: BoxFormat) -> Iterator[bool]:
    """For each box of pictures whose sides differ by a fifth: whether its numbers reach into the padded square's stripes."""
    for name, turns in turns_by_image.items():
        size = image_size(os.path.join(image_folder, name))
        if isinstance(size, str) or max(size) < 1.2 * min(size):
            continue
        stripe = (1 - min(size) / max(size)) / 2 - PADDING_ROUNDING
        for text in (text for pair in turns for text in pair):
            for box in box_format.parse(text, *size).boxes:
                low, high = (box.y1, box.y2) if size[0] > size[1] else (box.x1, box.x2)
                yield low < stripe or high > 1 - stripe


def _turns_by_image(file: str, skipped: Counter) -> dict[str, list[tuple[str, str]]]:
    """Picture file → its (question, answer) turns that may hold a box, over all records."""
    records = _load_json(file, "--data_path")
    if not isinstance(records, list):
        raise UserError(f"--data_path {file}: a LLaVA data file is a JSON list of records")
    turns: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        name = record.get("image") if isinstance(record, dict) else None
        talk = record.get("conversations") if isinstance(record, dict) else None
        if not isinstance(talk, list) or not all(isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in talk):
            skipped["bad_record"] += 1
        elif not isinstance(name, str) or not name:
            skipped["no_image"] += 1
        elif found := [pair for pair in _pairs(talk) if "[" in "".join(pair) or "<" in "".join(pair)]:
            turns.setdefault(name, []).extend(found)
    return turns


def _pairs(talk: Sequence[dict]) -> Iterator[tuple[str, str]]:
    """(question, answer) of each human turn that a gpt turn follows, without the picture's placeholder."""
    for first, second in zip(talk, talk[1:]):
        if first.get("from") == "human" and second.get("from") == "gpt":
            yield first["value"].replace("<image>", "").strip(), second["value"].strip()


def _mined(question: str, answer: str, width: int, height: int, box_format: BoxFormat, skipped: Counter) -> list[tuple[str, Box]]:
    """(phrase, box) of one turn; see `mine_conversations`."""
    said = box_format.parse(answer, width, height)
    skipped.update({f"box_{reason}": count for reason, count in said.failures.items()})
    if said.boxes:
        asked = REC_QUESTION.search(question)
        named = asked.group(1).rstrip(".") if asked and len(said.boxes) == 1 else ""
        return [(mention.phrase or named, box) for mention in said.mentions for box in mention.boxes]
    boxes = box_format.parse(question, width, height).boxes
    if len(boxes) == 1 and REG_QUESTION.search(question):
        return [(answer.rstrip("."), boxes[0])]
    return []


def _annotations(found: Iterable[tuple[str, Box]], skipped: Counter) -> tuple[Annotation, ...]:
    """Annotations of the (phrase, box) rows of one picture, without repetitions; the first of equals stays."""
    kept: list[Annotation] = []
    for phrase, box in found:
        label, clipped = _label(phrase), usable(box)
        if not label or clipped is None:
            skipped["outside" if label else "no_phrase"] += 1
        elif _repeats(label, clipped, kept):
            skipped["duplicate"] += 1
        else:
            kept.append(Annotation(len(kept), label, clipped, coarse=True))
    return tuple(kept)


def _repeats(label: str, box: Box, kept: Sequence[Annotation]) -> bool:
    overlaps = iou_matrix([box.xyxy], [other.box.xyxy for other in kept])[0]
    return any(
        overlap >= (0.5 if other.label.lower() == label.lower() else 0.9) for overlap, other in zip(overlaps, kept)
    )


@hookimpl
def spr_annotations(source: str, image_folder: str, skipped: Counter, keep_crowd: bool) -> CocoImages:
    """``--spr_annotations FILE`` as COCO-format JSON; a plugin that knows another format is asked first."""
    return CocoImages(source, image_folder, skipped, keep_crowd)
