"""Which pictures and objects regions are grown from: what ``--spr_exclude``, ``--spr_min_objects`` and
``--spr_min_area`` leave.

RefCOCO, RefCOCO+ and RefCOCOg test on pictures of COCO's *training* set, which LLaVA's mix, LVIS and Visual
Genome hold too: whoever measures on them names their files to ``--spr_exclude``. A picture is known by COCO's
number wherever its name has the twelve digits (``COCO_train2014_000000581857.jpg`` is
``train2017/000000581857.jpg`` and ``COCO_train2014_000000581857_jpg.rf.0f3a….jpg``) or a number behind the
name of one of COCO's sets (``COCO_train2014_581857.jpg``), else by its file name. Of several numbers in one
name any may be the picture's.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spr_plugin.data.annotations import AnnotatedImage
from spr_plugin.errors import UserError
from spr_plugin.loading import read_json, read_json_lines, read_lines
from spr_plugin.plain_pickle import load_plain
from spr_plugin.progress import say

# COCO's are below a million, which tells them from the twelve digits of dates and hashes; its year may stand
# before.
COCO_NUMBER = re.compile(r"(?:(?<!\d)|(?<=201[457]))(0{6}\d{6})(?!\d)")
# What an export of Roboflow makes of ``a.jpg``: ``a_jpg.rf.HASH.jpg``.
ROBOFLOW = re.compile(r"_(jpe?g|png|bmp|webp)\.rf\.[0-9A-Za-z]+\.[A-Za-z]{3,4}$")
TWELVE_DIGITS = re.compile(r"(?<!\d)(\d{12})(?!\d)")
IN_COCO_SET = re.compile(
    r"(?:coco|(?:train|val|test)201[457])[_-]0*(\d{1,6})(?!\d)|(?:train|val|test)201[457]/(\d{1,6})\.\w+$",
    re.IGNORECASE,
)
FIELDS = ("file_name", "image", "image_path", "img_path", "original_id", "image_id")
LONGEST_ID = 19  # digits
MOST_OF_COCO = 10**6
Key = int | str
AnyImage = TypeVar("AnyImage", bound=AnnotatedImage)


@dataclasses.dataclass(frozen=True)
class Selection:
    """What regions are grown from.

    Attributes:
        excluded: of each path of ``--spr_exclude``, `keys_of_picture` of the pictures that are left out.
        min_objects: pictures with fewer objects are left out.
        min_area: objects of fewer square pixels are left out.
        matched: the paths that have left out a picture so far.
        doubtful: pictures that were left out for one of several numbers in their name.
    """

    excluded: Mapping[str, frozenset[Key]] = dataclasses.field(default_factory=dict)
    min_objects: int = 1
    min_area: float = 0.0
    matched: set[str] = dataclasses.field(default_factory=set, compare=False)
    doubtful: list[str] = dataclasses.field(default_factory=list, compare=False)

    def __call__(self, image: AnyImage, skipped: Counter) -> AnyImage | None:
        """`image` with the objects that are large enough, or None; counted as ``excluded``, ``small``
        (objects), ``few_objects``.
        """
        own = keys_of_picture(image.path)
        if by := {path: own & keys for path, keys in self.excluded.items() if own & keys}:
            self.matched.update(by)
            skipped["excluded"] += 1
            others = own - frozenset().union(*by.values())
            if any(isinstance(key, int) and key < MOST_OF_COCO for key in others):
                self.doubtful.append(image.path)
            return None
        large = tuple(annotation for annotation in image.annotations if annotation.box.area >= self.min_area)
        if small := len(image.annotations) - len(large):
            skipped["small"] += small
        if len(large) < self.min_objects:
            skipped["few_objects"] += 1
            return None
        return dataclasses.replace(image, annotations=large) if small else image

    def unmatched(self) -> list[str]:
        """The paths of ``--spr_exclude`` that leave out no picture: none of those they name came by, or they
        name none.
        """
        return [path for path in self.excluded if path not in self.matched]

    def tell(self) -> None:
        """Say which of ``--spr_exclude`` left out nothing, and what was left out in doubt."""
        for path in self.unmatched():
            number = len(self.excluded[path])
            none = f"none of the {number} pictures that it names was found among those looked at"
            say(f"--spr_exclude {path}: {none if number else 'names no picture, so that it leaves out none'}")
        if self.doubtful:
            several = f"{len(self.doubtful)} pictures with several numbers in their names"
            say(f"--spr_exclude: {several}, such as {self.doubtful[0]}, are left out for one of them")


def keys_of_picture(name: Key) -> frozenset[Key]:
    """Every number of COCO's that a picture's file name or id may hold; else its file name without
    folders.
    """
    if isinstance(name, int):
        return frozenset([name])
    path = ROBOFLOW.sub(r".\1", str(name).replace("\\", "/"))
    _, _, base = path.rpartition("/")
    # a folder is named after a picture by who cuts it up, and a Roboflow export ends in a hash
    padded = [*COCO_NUMBER.findall(path), *TWELVE_DIGITS.findall(base)]
    behind = [first or second for first, second in IN_COCO_SET.findall(path)]
    bare = base if base.isascii() and base.isdecimal() and len(base) < LONGEST_ID else ""
    return frozenset(map(int, filter(None, [*padded, *behind, bare]))) or frozenset([base])


def excluded(
    paths: Sequence[str], keys_of: Callable[[Key], frozenset[Key]] = keys_of_picture
) -> dict[str, frozenset[Key]]:
    """Keys of the pictures that each of the files and folders of ``--spr_exclude`` names.

    A file holds one picture a line (``.txt``), JSON lines, a JSON list, COCO-like JSON (its ``images``), or
    the refs of the REFER data (``refs(unc).p``); a record names its picture by one of `FIELDS`, and records
    of a ``"split": "train"`` are passed over. Of a folder every ``refs(*).p`` and ``*.jsonl`` is read. Visual
    Genome's ``image_data.json`` excludes nothing by itself: it says under which Visual Genome names excluded
    COCO pictures are found. Raises UserError for anything else.
    """
    named: dict[str, set[Key]] = {path: set() for path in paths}
    genome: dict[str, frozenset[Key]] = {}
    only_translate = set()
    for path, keys in named.items():
        for row in (row for file in exclusion_files(path) for row in _rows(file)):
            if isinstance(row, dict) and "coco_id" in row:
                only_translate.add(path)
                if row["coco_id"] is not None:
                    genome[f"{row.get('image_id')}.jpg"] = _row_keys(row, path, keys_of, "coco_id")
            elif not (isinstance(row, dict) and row.get("split") == "train"):
                keys |= _row_keys(row, path, keys_of)
    copies = {path: {name for name, coco in genome.items() if coco & keys} for path, keys in named.items()}
    translated = only_translate if any(copies.values()) else set()
    return {
        path: frozenset(keys | copies[path]) for path, keys in named.items() if keys or path not in translated
    }


def exclusion_files(path: str) -> list[Path]:
    folder = Path(path)
    if not folder.is_dir():
        return [folder]
    if files := sorted(file for pattern in ("refs(*).p", "*.jsonl") for file in folder.rglob(pattern)):
        return files
    raise UserError(f"--spr_exclude {path}: the folder holds neither refs(*).p of the REFER data nor *.jsonl")


def _rows(file: Path) -> Iterable[object]:
    name = f"--spr_exclude {file}"
    if file.suffix == ".jsonl":
        return (value for _, value in read_json_lines(file, name))
    if file.suffix not in (".json", ".p"):
        return (line.strip() for _, line in read_lines(file, name))
    try:
        if file.suffix == ".p":
            content: Any = load_plain(file)
            return list(content)
        content = read_json(file, name)
        return list(content["images"]) if isinstance(content, dict) else list(content)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from None
    except (KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(f"{name}: not a list of pictures ({error})") from None


def _row_keys(
    row: object, path: str, keys_of: Callable[[Key], frozenset[Key]], *fields: str
) -> frozenset[Key]:
    fields = fields or FIELDS
    name = (
        next((row[field] for field in fields if row.get(field) is not None), None)
        if isinstance(row, dict)
        else row
    )
    if isinstance(name, (int, str)) and name != "":
        return keys_of(name)
    raise UserError(
        f"--spr_exclude {path}: a record names no picture (looked for {', '.join(fields)}): {str(row)[:80]}"
    )
