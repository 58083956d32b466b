"""``spr data``: a benchmark's original release → SPR_DATA_ROOT/FOLDER/SPLIT.parquet, the one layout that the
tasks read.

refcoco     refer's tree: ``refcoco/refs(unc).p``, ``refcoco/instances.json`` (so too ``refcoco+``;
            ``refcocog`` with ``refs(umd).p``), or MDETR's ``finetune_refcoco_val.json`` …; pictures in
            ``images/mscoco/images/train2014``. Writes refcoco, refcoco+, refcocog and, for region captions,
            refcocog_refs (not from MDETR's files).
flickr30k   Entities: ``Annotations/*.xml``, ``Sentences/*.txt``, ``val.txt``, ``test.txt``; pictures in
            ``flickr30k-images``
lvis        ``lvis_v1_val.json``; pictures in ``val2017``. Ferret's questions are not published: these are
            ours, with seeded wrong classes.
vg          ``region_descriptions.json``, ``image_data.json``, ``densecap_splits.json``; pictures in
            ``VG_100K`` and ``VG_100K_2``

Boxes become xyxy in pixels, clipped to the picture; what is left out is counted under a reason. The counts
are compared with the published
ones, and a difference is said, not refused: small sets convert too. Knows nothing about models and tasks.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from spr_plugin.data.pictures import refuse_outside, stored_bytes
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.release_flickr30k import flickr30k
from spr_plugin.eval_tasks.release_lvis import lvis
from spr_plugin.eval_tasks.release_records import Record
from spr_plugin.eval_tasks.release_refcoco import REC_PICTURES, refcoco
from spr_plugin.eval_tasks.release_vg import vg
from spr_plugin.files import draft_of, put
from spr_plugin.outputs import refuse_unnamed, refuse_unwritable
from spr_plugin.progress import say

# folder/split → (what, published count)
PUBLISHED = {
    "refcoco/val": ("expressions", 10834),
    "refcoco/testA": ("expressions", 5657),
    "refcoco/testB": ("expressions", 5095),
    "refcoco+/val": ("expressions", 10758),
    "refcoco+/testA": ("expressions", 5726),
    "refcoco+/testB": ("expressions", 4889),
    "refcocog/val": ("expressions", 4896),
    "refcocog/test": ("expressions", 9602),
    "refcocog_refs/val": ("refs", 2573),
    "refcocog_refs/test": ("refs", 5023),
    "flickr30k/val": ("captions", 5000),
    "flickr30k/test": ("captions", 5000),
}
LICENCES = {
    "refcoco": "Apache-2.0",
    "refcoco+": "Apache-2.0",
    "refcocog": "CC BY 4.0",
    "flickr30k": "unknown",
    "lvis": "CC BY 4.0",
    "vg": "CC BY 4.0",
}
ROWS_AT_ONCE = 500  # pictures may be in them
PICTURES = (REC_PICTURES, "flickr30k-images", "val2017", "VG_100K", "VG_100K_2")  # of the layouts above


def convert(benchmark: str, source: str, target: str, embed=False, allow_outside=False) -> Counter:
    """Convert a release under `source` into Parquet files under `target`.

    Args:
        benchmark: a name of the table above.
        embed: put the pictures into the files, instead of their paths (relative to `target`).
        allow_outside: names in the release may lead out of its folders of pictures.

    Returns:
        ``folder/split`` → documents written. Raises UserError where the release is not there or is broken.
    """
    refuse_unnamed("--from", source)
    if not Path(source).is_dir():
        raise UserError(f"--from {source}: no such folder")
    refuse_unwritable({"--to": target}, folders=True)
    counts, skipped = Counter(), Counter()
    for split_name, records in CONVERTERS[benchmark](Path(source), skipped):
        folder = split_name.split("/")[0]
        documents = [{**record, "licence": LICENCES[folder.removesuffix("_refs")]} for record in records]
        if not documents:
            raise UserError(f"--from {source}: {split_name} came out empty ({_told(skipped)})")
        _check_pictures(documents, Path(source), split_name, allow_outside)
        _write(documents, Path(source), Path(target), split_name, embed)
        counts[split_name] = len(documents)
        what, published = PUBLISHED.get(split_name, ("documents", None))
        differs = f"; the published split has {published}" if published not in (None, len(documents)) else ""
        say(f"{split_name}: {len(documents)} {what}{differs}")
    if skipped:
        say(f"left out: {_told(skipped)}")
    return counts


def _told(counts: Mapping) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def _check_pictures(records: list[Record], source: Path, split_name: str, allow_outside: bool) -> None:
    """UserError where pictures are missing or outside the release's folder of them, which may be a link."""
    names = {str(record["image"]): str(record["id"]) for record in reversed(records)}  # of its first record
    missing = sorted(name for name in names if not (source / name).is_file())
    if missing:
        lost = f"{len(missing)} of {len(names)} pictures of {split_name}"
        raise UserError(f"--from {source}: {lost} are missing, such as {missing[0]}")
    for folder in () if allow_outside else PICTURES:
        named = ((id, str(source / name)) for name, id in names.items() if name.startswith(f"{folder}/"))
        refuse_outside(named, str(source / folder), "--from", "--allow-outside")


def _write(records: list[Record], source: Path, target: Path, split_name: str, embed: bool) -> None:
    """One Parquet file; pictures' paths become relative to `target`, or the pictures themselves."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("spr data needs pyarrow: pip install 'spr-plugin[eval]'") from None
    file = target / f"{split_name}.parquet"
    rows = (_with_picture(record, source, target, embed) for record in records)
    part = draft_of(file)
    # Of all rows, without their pictures: a column may hold whole numbers for long before it holds others.
    picture = {"image_id": "", "image": {"bytes": b"", "path": ""} if embed else ""}
    schema = pyarrow.Table.from_pylist([{**record, **picture} for record in records]).schema
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with pyarrow.parquet.ParquetWriter(part, schema) as writer:
            while batch := list(islice(rows, ROWS_AT_ONCE)):
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
        put(part, file)
    except OSError as error:
        raise UserError(f"--to {target}: cannot write {file} ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


def _with_picture(record: Record, source: Path, target: Path, embed: bool) -> Record:
    path = source / str(record["image"])
    embedded = {"bytes": stored_bytes(str(path), str(record["id"])), "path": path.name} if embed else None
    return {**record, "image_id": path.name, "image": embedded or os.path.relpath(path, target)}


CONVERTERS: dict[str, Callable[[Path, Counter], Iterator[tuple[str, list[Record]]]]] = {
    "refcoco": refcoco,
    "flickr30k": flickr30k,
    "lvis": lvis,
    "vg": vg,
}
