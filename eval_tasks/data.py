"""A task's documents, from the folder ``SPR_DATA_ROOT`` or, where that is not set and the hub has them, from
the hub.

lmms-eval cannot take a path from the environment. So a task's YAML names a one-record file as its data set,
and :func:`load_documents` (its ``process_docs``) puts the documents of the split in its place that
:mod:`spr_plugin.eval_tasks.catalogue` describes.

A document is ``{id, image, image_id, width, height, box_format, …}``: sizes in pixels, ``image`` a path or
``{"bytes", "path"}`` (`pictures.PictureSource`), which nobody but :func:`doc_to_visual` decodes,
``box_format`` the name that :mod:`spr_plugin.eval_tasks.model_format` resolves, and the fields of its
protocol (``FIELDS`` of the protocol's module). All boxes are xyxy in pixels of the original picture.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import datasets

from spr_plugin.data.pictures import BadImage, PictureSource, header_size, open_image, outside_of, whole_size
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.catalogue import CATALOGUE, Split, module_of
from spr_plugin.eval_tasks.hub import ROOT, cache_folders, read_hub
from spr_plugin.eval_tasks.model_format import running_format, variable_format
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.eval_tasks.running import pad_left
from spr_plugin.loading import read_json_lines
from spr_plugin.progress import say

# What was read before the model was built, until its task is loaded: (SPR_DATA_ROOT, split) → documents.
_read: dict[tuple[str | None, str], datasets.Dataset] = {}


def read_first(splits: Iterable[Split]) -> None:
    """Read the documents of these tasks before a model is built. Refuses, in one line, what is missing or
    does not fit, or ``SPR_BOX_FORMAT``. One of several processes does; the others' launcher ends with it.
    """
    if os.environ.get("RANK", "0") == "0":
        variable_format(os.environ)
        for split in splits:
            root = os.environ.get(ROOT)
            _read[root, split.key] = _documents(root, split)


def load_documents(source: datasets.Dataset) -> datasets.Dataset:
    """The one-record data set of a task, named by its split → the documents. Refuses, in one line, what is
    missing or does not fit.
    """
    split, root = CATALOGUE[str(source.split)], os.environ.get(ROOT)
    documents = _read.pop((root, split.key), None) or _documents(root, split)
    pad_left()
    for name, value in {
        **split.options,
        "protocol": split.protocol,
        "box_format": running_format(os.environ),
    }.items():
        documents = documents.add_column(name, [value] * len(documents))
    return documents


def _documents(root: str | None, split: Split) -> datasets.Dataset:
    try:
        return read_folder(root, split) if root else read_hub(split)
    except UserError as error:
        refuse(str(error))


def doc_to_visual(doc: dict) -> list:
    """The document's picture as RGB. Refuses one that does not open or is not of the size the document says:
    its boxes would be off.
    """
    try:
        picture = open_image(doc["image"])
        check_size(doc, picture.size)
    except BadImage as error:
        refuse(f"picture {doc['image_id']} of document {doc['id']} does not open: {error}")
    except UserError as error:
        refuse(str(error))
    return [picture]


def check_size(doc: Mapping, size: tuple[int, int]) -> None:
    """UserError where a document says another (width, height) of its picture."""
    if size != (doc["width"], doc["height"]):
        stated = (doc["width"], doc["height"])
        raise UserError(f"picture {doc['image_id']} of document {doc['id']} is {size}, not {stated}")


# --- SPR_DATA_ROOT


def read_folder(root: str, split: Split) -> datasets.Dataset:
    """The documents of a split under `root`."""
    if not Path(root).is_dir():
        raise UserError(f"{ROOT}={root}: no such folder")
    protocol = importlib.import_module(module_of(split.protocol))
    documents = [
        document
        for part in split.split.split("+")
        for document in _read_part(Path(root).resolve(), split, part, protocol)
    ]
    _require_distinct_ids(documents, split)
    _look_outside(documents, Path(root).resolve(), split)
    return _with_pictures(documents)


def _read_part(root: Path, split: Split, part: str, protocol) -> list[dict]:
    kinds = getattr(protocol, "KINDS", (".parquet", ".jsonl"))
    files = [root / split.folder / f"{part}{kind}" for kind in kinds]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(
            f"{files[-1]}: no such file; {ROOT} must hold {split.folder}/{part}{kinds[-1]} (or name another"
            " task)"
        )
    records = protocol.read(file) if hasattr(protocol, "read") else READERS[file.suffix](file)
    documents = [local_document(record, root, where, protocol.FIELDS) for record, where in records]
    if not documents:
        raise UserError(f"{file}: has no record")
    _require_pictures(
        {document["image"]: document["id"] for document in documents if isinstance(document["image"], str)},
        file,
    )
    _check_pictures(documents, file)
    return documents


def local_document(record: dict, root: Path, where: str, readers: Mapping[str, Callable]) -> dict:
    """One record of a file, its fields checked → a document. `where` names it in messages."""
    missing = [key for key in ("id", "image", "width", "height", *readers) if record.get(key) is None]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}")
    try:
        size = width, height = int(record["width"]), int(record["height"])
        if min(size) <= 0:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where}: width and height must be numbers of pixels, not {record['width']!r:.40} and"
            f" {record['height']!r:.40}"
        ) from None
    id, picture = str(record["id"]), _local_picture(record["image"], root, where)
    image_id = record.get("image_id") or (record["image"] if isinstance(record["image"], str) else id)
    document = {"id": id, "image_id": str(image_id), "width": width, "height": height, "image": picture}
    for name, read in readers.items():
        try:
            document[name] = read(record[name], size)
        except (TypeError, ValueError, KeyError) as error:
            of = f"id {id}, in a {width} x {height} picture"
            raise UserError(f"{where}: {name} {record[name]!r:.100} {error} ({of})") from None
    return document


def _local_picture(given: object, root: Path, where: str) -> PictureSource:
    """A record's picture: a path in `root`, or its content as ``{"bytes", "path"}``."""
    if isinstance(given, bytes):
        given = {"bytes": given}
    if isinstance(given, dict):
        content, given = given.get("bytes"), given.get("path")
        if isinstance(content, bytes):
            return {"bytes": content, "path": given}
    if isinstance(given, str) and given:
        return str(root / given)
    raise UserError(f"{where}: image is neither a path nor the bytes of a picture")


def _check_pictures(documents: Iterable[dict], file: Path) -> None:
    """UserError for the first document whose picture cannot be used, or is of another size than it says.

    Looked at are headers of files and the whole of embedded pictures, each once for all its documents.
    """
    sizes: dict[str | bytes, tuple[int, int]] = {}
    for document in documents:
        picture = document["image"]
        key = picture["bytes"] if isinstance(picture, dict) else picture
        try:
            if key not in sizes:
                sizes[key] = whole_size(picture) if isinstance(picture, dict) else header_size(picture)
            check_size(document, sizes[key])
        except BadImage as error:
            of = f"{document['image_id']} of document {document['id']}"
            raise UserError(f"{file}: picture {of} does not open: {error}") from None
        except UserError as error:
            raise UserError(f"{file}: {error}") from None


def _with_pictures(documents: list[dict]) -> datasets.Dataset:
    """Documents as a data set; embedded pictures become Image features, which lmms-eval leaves out where no
    picture is needed. They stay undecoded there: ``datasets`` would turn them by their orientation.
    """
    if all(isinstance(document["image"], str) for document in documents):
        return datasets.Dataset.from_list(documents)
    pictures = [document["image"] for document in documents]
    sources = [{"bytes": None, "path": one} if isinstance(one, str) else one for one in pictures]
    rows = [{**document, "image": source} for document, source in zip(documents, sources)]
    table = datasets.Dataset.from_list(rows)
    return table.cast_column("image", datasets.Image(decode=False))


def _parquet(file: Path) -> Iterator[tuple[dict, str]]:
    """Each row of a Parquet file, with the words that name it in a message."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{file}: not a Parquet file ({error})") from None
    return ((row, f"{file}, row {number}") for number, row in enumerate(rows, 1))


def _jsonl(file: Path) -> Iterator[tuple[dict, str]]:
    """Each record of a file of JSON lines, with the words that name it."""
    for number, record in read_json_lines(file, str(file)):
        where = f"{file}, line {number}"
        if not isinstance(record, dict):
            raise UserError(f"{where}: not a record but {type(record).__name__}")
        yield record, where


READERS = {".parquet": _parquet, ".jsonl": _jsonl}


def _require_distinct_ids(documents: list[dict], split: Split) -> None:
    seen = set()
    for document in documents:
        if document["id"] in seen:
            raise UserError(
                f"{split.folder}/{split.split}: id {document['id']} stands there twice, so its answers could"
                " not be told apart"
            )
        seen.add(document["id"])


def _require_pictures(id_by_path: dict[str, str], file: Path) -> None:
    """All pictures must be there before a long run starts; that one opens is seen when it is used."""
    missing = [path for path in id_by_path if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f"{file}, id {id_by_path[missing[0]]}: picture {missing[0]} is missing ({len(missing)} of"
            f" {len(id_by_path)} are)"
        )


def _look_outside(documents: list[dict], root: Path, split: Split) -> None:
    """Say how many pictures lie outside the folder, as those that ``spr data`` names do. UserError where it
    was
    downloaded: other people's data name no file of this machine.
    """
    paths = dict.fromkeys(one["image"] for one in documents if isinstance(one["image"], str))
    caches = [outside_of(str(folder)) for folder in cache_folders()]
    downloaded = (root / ".cache" / "huggingface").is_dir() or not all(
        outside(str(root / "x")) for outside in caches
    )
    allowed = [outside_of(str(root)), *(caches if downloaded else [])]
    if strangers := [path for path in paths if all(outside(path) for outside in allowed)]:
        number = f"{len(strangers)} of {len(paths)} pictures"
        lie = f"{number} of {split.folder}/{split.split} lie outside {ROOT}={root}"
        if downloaded:
            raise UserError(f"{lie}, which was downloaded, such as {strangers[0]}: put them into the folder")
        say(f"{lie}, such as {strangers[0]}")


# --- the hub
