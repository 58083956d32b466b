"""A task's documents: one a referring expression, from the folder ``SPR_DATA_ROOT`` or, where that is not set, from the hub.

lmms-eval cannot take a path from the environment. So a task's YAML names a one-record *source* file as its data set, and
:func:`load_documents` (its ``process_docs``) puts the real documents in its place. A source record has

    folder, split      → SPR_DATA_ROOT/folder/split.jsonl
    hub, hub_split     → the hub data set
    rows, expressions  → of the published split on the hub; anything else is refused, as the hub's val mixes two splits

A document is ``{id, image, image_id, width, height, expression, bbox, box_format}``: sizes in pixels, bbox xyxy in pixels of the
original picture, ``image`` a path or a picture, ``box_format`` the name that :mod:`spr_plugin.eval_tasks.model_format` resolves.
"""

import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import datasets
from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.model_format import running_format
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.eval_tasks.running import pad_left

ROOT = "SPR_DATA_ROOT"


def load_documents(source: datasets.Dataset) -> datasets.Dataset:
    """The source record of a split → its documents. Refuses, in one line, what is missing or does not fit."""
    record, root = source[0], os.environ.get(ROOT)
    try:
        documents = read_folder(root, record["folder"], record["split"]) if root else read_hub(record)
    except UserError as error:
        refuse(str(error))
    pad_left()
    return documents.add_column("box_format", [running_format(os.environ)] * len(documents))


def read_folder(root: str, folder: str, split: str) -> datasets.Dataset:
    """``root/folder/split.jsonl``: a record ``{id, image, width, height, expression, bbox}`` a line, image relative to root, bbox xyxy px."""
    file = Path(root, folder, f"{split}.jsonl").resolve()
    if not Path(root).is_dir():
        raise UserError(f"{ROOT}={root}: no such folder")
    if not file.is_file():
        raise UserError(f"{file}: no such file; {ROOT} must hold {folder}/{split}.jsonl (or name another task)")
    documents = [_local_document(record, Path(root).resolve(), where) for record, where in _records(file)]
    if not documents:
        raise UserError(f"{file}: has no record")
    _require_distinct_ids(documents, file)
    _require_pictures({document["image"]: document["id"] for document in documents}, file)
    return datasets.Dataset.from_list(documents)


def read_hub(record: dict) -> datasets.Dataset:
    """The published split from the hub data set of a source record. Needs the network, or the hub's cache."""
    name, split = record["hub"], record["hub_split"]
    try:
        rows = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"hub data set {name}, split {split}: {error}; or set {ROOT} to a local folder") from None
    return explode(published_rows(rows, record["rows"], record["expressions"], f"hub data set {name}, split {split}"))


def published_rows(rows: datasets.Dataset, count: int, expressions: int, name: str) -> datasets.Dataset:
    """The published split among a hub data set's rows: its first `count`, which must hold exactly `expressions` expressions.

    The hub's RefCOCO val is UNC's split followed by Google's, most of whose pictures are UNC training data.
    """
    found = rows.select(range(min(count, len(rows))))
    held = sum(len(answers) for answers in found["answer"])
    if (len(found), held) != (count, expressions):
        raise UserError(
            f"{name}: the first {count} rows should hold {expressions} expressions, but {len(found)} rows hold {held}; "
            f"the data set has changed, so set {ROOT} to a local folder with the published split"
        )
    return found


def explode(rows: datasets.Dataset) -> datasets.Dataset:
    """Hub rows ``{question_id, image, answer: [expression …], bbox: xywh px, file_name}`` → one document an expression."""
    places, documents = [], []
    plain = rows.cast_column("image", datasets.Image(decode=False))
    for place, row in enumerate(plain):
        width, height = _picture_size(row["image"])
        for number, expression in enumerate(row["answer"]):
            places.append(place)
            documents.append(
                {
                    "id": f"{row['question_id']}-{number}",
                    "image_id": row["file_name"],
                    "width": width,
                    "height": height,
                    "expression": expression,
                    "bbox": xywh_to_xyxy(row["bbox"]),
                }
            )
    pictures = rows.select_columns("image").select(places)
    return datasets.concatenate_datasets([datasets.Dataset.from_list(documents), pictures], axis=1)


def xywh_to_xyxy(box: list[float]) -> list[float]:
    """Left, top, width, height → left, top, right, bottom; no + 1."""
    x, y, width, height = map(float, box)
    return [x, y, x + width, y + height]


def _records(file: Path) -> Iterator[tuple[dict, str]]:
    """Each record of a JSONL file, with the words that name it in a message."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise UserError(f"{where}: not a record but {type(record).__name__}")
            yield record, where


def _local_document(record: dict, root: Path, where: str) -> dict:
    missing = [key for key in ("id", "image", "width", "height", "expression", "bbox") if key not in record]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}")
    try:
        width, height, box = int(record["width"]), int(record["height"]), [float(value) for value in record["bbox"]]
    except (TypeError, ValueError):
        raise UserError(f"{where}: width and height must be numbers of pixels, bbox four of them") from None
    if width <= 0 or height <= 0 or len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
        raise UserError(f"{where}: bbox {record['bbox']} is not left, top, right, bottom in pixels of a {width} x {height} picture")
    return {
        "id": str(record["id"]),
        "image": str(root / str(record["image"])),
        "image_id": str(record["image"]),
        "width": width,
        "height": height,
        "expression": str(record["expression"]),
        "bbox": box,
    }


def _require_distinct_ids(documents: list[dict], file: Path) -> None:
    seen = set()
    for document in documents:
        if document["id"] in seen:
            raise UserError(f"{file}: id {document['id']} stands there twice, so its answers could not be told apart")
        seen.add(document["id"])


def _require_pictures(id_by_path: dict[str, str], file: Path) -> None:
    """All pictures must be there before a long run starts; that one opens is seen when it is used."""
    missing = [path for path in id_by_path if not os.path.isfile(path)]
    if missing:
        raise UserError(f"{file}, id {id_by_path[missing[0]]}: picture {missing[0]} is missing ({len(missing)} of {len(id_by_path)} are)")


def _picture_size(stored: dict) -> tuple[int, int]:
    """Width and height in pixels from the header of a hub row's picture, ``{bytes, path}``."""
    with Image.open(io.BytesIO(stored["bytes"]) if stored["bytes"] else stored["path"]) as picture:
        return picture.size
