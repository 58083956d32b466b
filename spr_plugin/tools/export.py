"""``spr export``: the preference pairs of a run for another trainer, with their pictures and a card.

The folder is made whole or not at all; the run is read and never written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spr_plugin import runs
from spr_plugin.data.pictures import MISSING, BadImage, MadePicture, stored_bytes, whole_size
from spr_plugin.errors import UserError
from spr_plugin.files import disk_errors, remove, write_json, write_json_lines, write_text
from spr_plugin.ids import digest
from spr_plugin.marks import beside, marks_at, read_marks
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.progress import counted, listed, say
from spr_plugin.report.rendering import template
from spr_plugin.runs import SavedRun
from spr_plugin.runs.moved import advice
from spr_plugin.runs.reading import strange_errors
from spr_plugin.tools.layouts import LAYOUTS, Layout, Row

IMAGES = "images"  # the folder of the pictures
PNG = b"\x89PNG\r\n\x1a\n"
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
LONGEST_NAME = 60
# Where pairs come from, as a card calls it → what of a run's settings names it.
SOURCES = {
    "pictures": "spr_image_folder",
    "annotations": "spr_annotations",
    "conversations": "data_path",
    "pairs": "spr_pairs",
}
AT_ONCE = 64  # rows whose pictures are in memory


def export(
    directory: str,
    format: str,
    to: str,
    plugins: Iterable[str] = (),
    link: bool = False,
    marks: str | None = None,
    images: str | None = None,
) -> str:
    """Write the pairs of the run in `directory` to the new folder `to`; what was written, in a line.

    Args:
        format: one of LAYOUTS.
        marks: a file of marked pairs, which are left out; without it that beside the run, where there is one.
        link: pictures are links to where they lie, but for those whose file asks to be turned.
        images: where the pictures are, if they are not where the run found them.

    Raises:
        UserError: no run, no pair that can be written, or a folder that is there already.
    """
    layout, run = LAYOUTS[format], runs.open(directory, plugins, images)
    refuse_unwritable({"--to": to}, folders=True)
    marked = read_marks(marks, "--marks") if marks is not None else marks_at(beside(run.folder.whole.path))
    target = Path(to)
    if target.resolve().is_relative_to(run.folder.path.resolve()):
        raise UserError(f"--to {to}: lies in {run.folder}, which is the run's own; take another folder")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"--to {to}: holds something already; take a new folder")
    if not run.pairs:
        raise UserError(f"{run.folder}: holds no preference pairs yet; `spr status` says how far it is")
    if marks and (strangers := marked.keys() - {pair.id for one in (run, *run.rounds) for pair in one.pairs}):
        say(
            f"--marks {marks}: {len(strangers)} of its {len(marked)} pairs, such as {min(strangers)}, are not"
            " of this run"
        )
    draft = target.with_name(f"{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with strange_errors(run.folder.path):
            counts = write(run, layout, draft, link, marked)
        with disk_errors(f"--to {to}"):
            draft.replace(target)
    except UserError as error:  # of a full disk, say, which no draft is to be looked for on
        raise UserError(str(error).replace(str(draft), f"--to {to}")) from None
    finally:
        remove(draft)
    for later in run.rounds:
        say(f"{later.folder.path.name} is a run of its own: spr export {later.folder} …")
    left = listed(counts["left_out"]) + counts["lost"]
    return f"{counts['pairs']} pairs in {to}" + (f" (left out: {left})" if left else "")


def write(
    run: SavedRun, layout: Layout, folder: Path, link: bool, marked: Container[str] = ()
) -> dict[str, Any]:
    """Rows, pictures and card of all pairs but the `marked` ones in a new folder; ``{"pairs", "pictures",
    "left_out", "lost": what to do about pictures that are not there, "hash"}``. UserError where no pair is
    left.
    """
    pictures, left_out, unread, lost = Pictures(folder, link), Counter[str](), "", ""
    with disk_errors(folder):
        (folder / IMAGES).mkdir(parents=True)
    rows = []
    for pair in run.pairs:
        try:
            why = "marked" if pair.id in marked else layout.refused(pair)
            names = [] if why else [pictures(source) for source in pair.pictures]
        except BadImage as error:
            why, unread = error.reason, unread or f"; the first: {error}"
            lost = lost or (f"; the first {advice(str(error.path), run.images)}" if why == MISSING else "")
        if why:
            left_out[why] += 1
        else:
            rows.append(layout.row(pair, names))
    if not rows:
        none = f"{run.folder}: none of its {len(run.pairs)} pairs can be written ({listed(left_out)})"
        raise UserError(none + (lost or unread))
    write_rows(folder, layout, rows)
    for name, content in (layout.beside or {}).items():
        write_json(folder / name, content)
    if layout.file.endswith(".parquet"):
        remove(folder / IMAGES)  # they are in the rows
    counts = {
        "pairs": len(rows),
        "pictures": len(pictures.names),
        "left_out": counted(left_out.elements()),
        "lost": lost,
        "hash": hashlib.sha256((folder / layout.file).read_bytes()).hexdigest(),
    }
    write_text(folder / "README.md", card(run, layout, counts))
    return counts


def write_rows(folder: Path, layout: Layout, rows: list[Row]) -> None:
    """The file of a layout, as its ending says."""
    path = folder / layout.file
    if path.suffix == ".jsonl":
        write_json_lines(path, rows)
    elif path.suffix == ".json":
        write_json(path, rows)
    else:
        write_parquet(path, rows)


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Rows with their pictures' bytes, of which ``datasets`` makes pictures again."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("--format parquet needs pyarrow: pip install pyarrow") from None
    # Of all rows, without their pictures: the scores of the first may all be missing.
    empty = {"images": [{"bytes": b"", "path": ""}]}
    schema = pyarrow.Table.from_pylist([{**row, **empty} for row in rows]).schema
    schema = schema.with_metadata({"huggingface": _features(schema)})
    with disk_errors(path), pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows), AT_ONCE):
            batch = [{**row, "images": _embedded(path.parent, row)} for row in rows[start : start + AT_ONCE]]
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))


def _embedded(folder: Path, row: Row) -> list[Row]:
    return [{"bytes": (folder / name).read_bytes(), "path": name} for name in row["images"]]


def _features(schema: Any) -> str:
    """What ``datasets`` calls the columns: without it pictures would be bytes."""
    features = {field.name: _feature(field.type) for field in schema}
    features["images"] = {"feature": {"_type": "Image"}, "_type": "List"}
    return json.dumps({"info": {"features": features}})


def _feature(kind: Any) -> Any:
    """What ``datasets`` calls a type of Arrow, of those that a row has."""
    from pyarrow import types

    if types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": "float64" if types.is_floating(kind) else "string", "_type": "Value"}


class Pictures:
    """``pictures(source)`` → the name within the folder of a picture that was put there, once for all pairs.

    Attributes:
        names: what it is opened by → name.
    """

    def __init__(self, folder: Path, link: bool):
        self.folder, self.link, self.names = folder, link, dict[str | MadePicture, str]()

    def __call__(self, source: str | MadePicture) -> str:
        """BadImage for a picture that cannot be read."""
        if source not in self.names:
            self.names[source] = self._put(source)
        return self.names[source]

    def _put(self, source: str | MadePicture) -> str:
        made = isinstance(source, MadePicture)
        path = source.path if isinstance(source, MadePicture) else source
        whole_size(path)
        content = stored_bytes(source)
        stem, suffix = os.path.splitext(os.path.basename(path))
        was_png = suffix.lower() == ".png"
        turned = made or (content.startswith(PNG) and not was_png)
        suffix = ".png" if turned else UNSAFE.sub("", suffix).lower()
        # Pictures of one name may come from several folders.
        name = f"{IMAGES}/{UNSAFE.sub('_', stem)[:LONGEST_NAME]}-{digest(source)[:8]}{suffix}"
        with disk_errors(self.folder):
            if self.link and not turned:
                (self.folder / name).symlink_to(os.path.realpath(path))
            else:
                (self.folder / name).write_bytes(content)
        return name


def card(run: SavedRun, layout: Layout, counts: Mapping[str, Any]) -> str:
    """README.md of the folder: where the pairs come from, and how they are used."""
    text: str = template("card.md").render(
        counts=counts,
        queries=len(run.queries),
        sources={what: _named(value) for what, name in SOURCES.items() if (value := run.config.get(name))},
        flags={name: json.dumps(_public(value), ensure_ascii=False) for name, value in run.config.items()},
        seed=run.flags.spr_seed,
        version=run.version,
        layout=layout,
    )
    return text


def _named(value: Any) -> str:
    """A file or folder of a run's settings by its name alone."""
    path = value.get("path") if isinstance(value, dict) else value
    return os.path.basename(str(path).rstrip(os.sep))


def _public(value: Any) -> Any:
    """A flag's value without the folders of whoever ran it; a file keeps its name and hash."""
    if isinstance(value, dict):
        return {name: _public(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_public(one) for one in value]
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value
