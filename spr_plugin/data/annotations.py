"""Pictures with object boxes: COCO-format JSON. Those mined from conversations are in
:mod:`spr_plugin.data.conversations`.

Single bad records never stop a run: each is left out and counted under its reason in the caller's `skipped`
Counter. What raises :class:`~spr_plugin.errors.UserError` is a file that is wrong as a whole.

Boxes refer to the pixels as stored in the file. EXIF orientation is not applied, because LLaVA opens pictures
without it too.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from spr_plugin.boxes import Box, Space, finite
from spr_plugin.data.coco_index import CocoIndex
from spr_plugin.data.pictures import BadImage, Picture, image_size, open_image  # noqa: F401 (for plugins' sources)
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.progress import say

SMALLEST = 1.0  # px; a box with a shorter side is no object that a description could name
LONGEST_PATH = 4096  # characters; no file system has longer ones
TAG = re.compile(r"<[/|]{0,2}[A-Za-z_][\w ]*\|?/?>")
BOX_MARKS = re.compile(r"[][<>{}()\"\\|]")
NAME_END = re.compile(r"_\(|/")


@dataclass(frozen=True)
class Annotation:
    """One object.

    Attributes:
        id: unique within its picture.
        label: category name or phrase; never empty.
        box: in pixels of the picture, clipped to it.
        coarse: read back from rounded box text (half a step of LLaVA's is 3 px at 640 px), not annotated to
            the pixel.
    """

    id: int | str
    label: str
    box: Box
    coarse: bool = False


@dataclass(frozen=True)
class AnnotatedImage(Picture):
    """A picture file with its objects."""

    annotations: tuple[Annotation, ...]


class NumberedImages(Protocol):
    """Annotated pictures of which any one can be had without the others."""

    ids: Sequence[int | str]

    def image(self, number: int) -> AnnotatedImage | None:
        """The picture ``ids[number]``, or None."""


def is_numbered(images: Iterable[AnnotatedImage]) -> TypeGuard[NumberedImages]:
    """Whether they are :class:`NumberedImages`; by name, as what a plugin gives is (``spr_annotations``)."""
    return hasattr(images, "ids")


# --- COCO-format JSON: COCO, LVIS, Objects365


class CocoImages:
    """Pictures of a COCO file with at least one usable box, in the file's order, or any one by its number.

    Records that name one file are one picture, with the first one's id and the objects of all. Boxes are
    clipped to the picture. With `keep_crowd` groups and ignored objects are objects too. Left out and counted
    in `skipped`, as far as pictures are asked for: annotations as ``crowd``, ``ignored``, ``bad_box``,
    ``not_finite``, ``zero_area``, ``outside``, ``no_label``, ``duplicate_id``, ``duplicate`` (of another
    record's); pictures under `pictures.REASONS`, as ``size_mismatch`` (with the record), ``no_objects``; and
    of the whole file ``unknown_image``, ``bad_image_record``, ``duplicate_image_id``. Raises UserError where
    `file` is not COCO JSON, or one id or one file is named in two ways.

    Attributes:
        ids: of all pictures of the file, usable or not.
    """

    def __init__(self, file: str, image_folder: str, skipped: Counter, keep_crowd: bool = False):
        self._index = CocoIndex(file, file_name_of, skipped)
        self._folder, self._skipped, self._keep_crowd = image_folder, skipped, keep_crowd
        self._labels = {
            record.get("id"): _category(record.get("name"))
            for record in self._index.categories
            if isinstance(record, dict)
        }
        self._names: dict[str, str] = {}  # path → the name that led there
        self.ids = self._index.ids.as_text()
        if self._index.again:
            again = f"{self._index.again} image records name a file that an earlier one names"
            say(f"{file}: {again}; their objects are taken together")

    def image(self, number: int) -> AnnotatedImage | None:
        """The picture ``ids[number]``, or None, counted."""
        return self._image(self._index.ids[number])

    def named(self, name: str) -> AnnotatedImage | None:
        """The picture whose records have this ``file_name``, or None, counted. KeyError where none has it."""
        if (id := self._index.named(name)) is None:
            raise KeyError(name)
        return self._image(id)

    def _image(self, id: int | str) -> AnnotatedImage | None:
        records = self._index.images(id)
        path = self._path(_file_name(records[0]))
        size = image_size(path)
        if isinstance(size, str):
            self._skipped[size] += len(records)
            return None
        fitting = [record for record in records if (record["width"], record["height"]) == size]
        if len(fitting) < len(records):
            self._skipped["size_mismatch"] += len(records) - len(fitting)
        if not fitting:
            return None
        space = Space.pixels(*size)
        of_records = [self._annotations(record["id"], space) for record in fitting]
        annotations = _joined(of_records, self._skipped)
        if not annotations:
            self._skipped["no_objects"] += 1
            return None
        return AnnotatedImage(str(id), path, *size, annotations)

    def _annotations(self, id: int | str, space: Space) -> list[Annotation]:
        """The usable objects of one record, the first of each id."""
        rows = [row for row in self._index.annotations(id) if isinstance(row, dict)]
        read = (_coco_annotation(row, self._labels, space, self._skipped, self._keep_crowd) for row in rows)
        sound = [annotation for annotation in read if annotation]
        by_id = {annotation.id: annotation for annotation in reversed(sound)}
        if len(sound) > len(by_id):
            self._skipped["duplicate_id"] += len(sound) - len(by_id)
        return list(reversed(by_id.values()))

    def _path(self, name: str) -> str:
        """Where the file lies: under its name in the folder, or under a suffix of it that is none of another
        record's name. UserError for a file that another name has led to."""
        first, *shorter = _path_suffixes(name)
        path = os.path.join(self._folder, first)
        # A folder that is there and lacks the file is the one that is meant: its name's end is another file.
        if not os.path.exists(path) and not _names_a_folder(self._folder, name):
            there = (suffix for suffix in shorter if os.path.exists(os.path.join(self._folder, suffix)))
            own = next((suffix for suffix in there if not self._index.shared(name, suffix)), first)
            path = os.path.join(self._folder, own)
        if (other := self._names.setdefault(os.path.abspath(path), name)) != name:
            raise UserError(
                f"--spr_annotations {self._index.file}: {other} and {name} are one file, {path}: name it"
                " alike"
            )
        return path

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return filter(None, map(self.image, range(len(self.ids))))


def _names_a_folder(folder: str, name: str) -> bool:
    inner = os.path.dirname(name)
    return bool(inner) and not os.path.isabs(name) and os.path.isdir(os.path.join(folder, inner))


def _path_suffixes(name: str) -> list[str]:
    """``images/v1/patch8/a.jpg``, ``v1/patch8/a.jpg`` … ``a.jpg``: as Objects365 and LVIS name files, and as
    they are unpacked."""
    indices = range(max(len(name) - LONGEST_PATH, 0), len(name) - 1)
    return [name, *(name[index + 1 :] for index in indices if name[index] == "/" != name[index + 1])]


def _joined(of_records: list[list[Annotation]], skipped: Counter) -> tuple[Annotation, ...]:
    """The objects of all records of one file: no box twice under one label, no id twice."""
    joined = {annotation.id: annotation for annotation in of_records[0]}
    for number, later in enumerate(of_records[1:], 2):
        for annotation in later:
            if any(
                (known.label, known.box) == (annotation.label, annotation.box) for known in joined.values()
            ):
                skipped["duplicate"] += 1
                continue
            id = annotation.id if annotation.id not in joined else f"{annotation.id} of record {number}"
            joined[id] = dataclasses.replace(annotation, id=id)
    return tuple(joined.values())


def _hashable(value: object) -> bool:
    return isinstance(value, (int, str))


def file_name_of(record: object, skipped: Counter) -> str:
    """The file name of an ``images`` entry; "", counted, unless it has an id and whole positive sizes too."""
    name = _file_name(record) if isinstance(record, dict) and _is_sound(record) else ""
    skipped.update([] if name else ["bad_image_record"])
    return name


def _is_sound(record: Mapping[str, Any]) -> bool:
    sides = record.get("width"), record.get("height")
    return _hashable(record.get("id")) and all(isinstance(side, int) and side > 0 for side in sides)


def _file_name(record: Mapping[str, Any]) -> str:
    """``file_name``, or the end of LVIS's ``coco_url`` (``train2017/000000000009.jpg``)."""
    name = record.get("file_name") or "/".join(str(record.get("coco_url") or "").split("/")[-2:])
    return name if isinstance(name, str) else ""


def _coco_annotation(
    row: Mapping[str, Any], labels: Mapping[Any, str], space: Space, skipped: Counter[str], keep_crowd: bool
) -> Annotation | None:
    """The annotation of one row, or None, counted."""
    label = labels.get(row.get("category_id"), "") if _hashable(row.get("category_id")) else ""
    box = _coco_box(row, space, keep_crowd) if label else "no_label"
    if isinstance(box, str):
        skipped[box] += 1
        return None
    return Annotation(row["id"] if _hashable(row.get("id")) else f"{box.xyxy}", label, box)


def _coco_box(row: Mapping[str, Any], space: Space, keep_crowd: bool) -> Box | str:
    """COCO's xywh as a box on the picture, or the reason why it is left out."""
    if not keep_crowd and (row.get("iscrowd") or row.get("ignore")):
        return "crowd" if row.get("iscrowd") else "ignored"
    numbers = row.get("bbox")
    if (
        not isinstance(numbers, list)
        or len(numbers) != 4
        or not all(isinstance(n, (int, float)) for n in numbers)
    ):
        return "bad_box"
    x, y, width, height = map(float, numbers)
    if not all(map(math.isfinite, (x, y, width, height))):
        return "not_finite"
    if width <= 0 or height <= 0:
        return "zero_area"
    return usable(Box(x, y, x + width, y + height, space)) or "outside"


def usable(box: Box) -> Box | None:
    """`box` in pixels, clipped to its picture; None where less than a pixel of it lies there, or it is no
    number.
    """
    if not finite(box.xyxy):
        return None
    clipped = box.to(Space.pixels(box.space.width, box.space.height)).clip()
    return clipped if clipped.width >= SMALLEST and clipped.height >= SMALLEST else None


def label_of(name: object) -> str:
    """A phrase without what box text is made of, which would be read back as something else: tags, brackets,
    quotes.
    """
    bare = TAG.sub(" ", name) if isinstance(name, str) else ""
    return " ".join(BOX_MARKS.sub(" ", bare).split()).strip(",.;: ")


# Words of Objects365's category names as they are spelled in its files.
MISSPELT = {
    "moniter": "monitor",
    "bakset": "basket",
    "ballon": "balloon",
    "dinning": "dining",
    "extention": "extension",
    "hamimelon": "Hami melon",
    "mushroon": "mushroom",
    "measur": "measure",
    "campel": "camel",
    "buttefly": "butterfly",
    "noddles": "noodles",
    "teniis": "tennis",
}


def _category(name: object) -> str:
    """A category's name as a phrase: LVIS's ``bow_(decorative_ribbons)`` is a bow, Objects365's
    ``Moniter/TV`` a monitor.
    """
    first = NAME_END.split(name)[0] if isinstance(name, str) else ""
    return " ".join(MISSPELT.get(word.lower(), word) for word in label_of(first.replace("_", " ")).split())


@hookimpl
def spr_annotations(source: str, image_folder: str, skipped: Counter, keep_crowd: bool) -> CocoImages:
    """``--spr_annotations FILE`` as COCO-format JSON; a plugin that knows another format is asked first."""
    return CocoImages(source, image_folder, skipped, keep_crowd)
