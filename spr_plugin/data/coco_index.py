"""Where the records of a COCO-format JSON file lie in it, so that any picture's are read without the rest:
for Objects365, 6 GB in one file.

The file is streamed once; SQLite tables keep, of each image and annotation record, its id and its place in
the file, and of images the file name. The records stay where they are and are parsed by ``json`` when asked
for, so the index knows no other field of them. None of it is held in memory, however large the file: that
takes SQLite's pages and what it sorts at once, ``cache_size`` of each. The index of a file above
``KEPT_BYTES`` is kept in the user's cache folder (``XDG_CACHE_HOME``) under the file's fingerprint and its
own checksum: one that was damaged since is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import eq
from pathlib import Path

from spr_plugin.data.record_stream import CHUNK, LISTS, RecordStream, is_id
from spr_plugin.errors import UserError
from spr_plugin.files import content, draft_of, put
from spr_plugin.ids import digest
from spr_plugin.loading import parse_json
from spr_plugin.progress import say

KEPT_BYTES = 32 << 20
SCHEMA = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768; PRAGMA temp_store = FILE;
    CREATE TEMP TABLE scattered (start INTEGER PRIMARY KEY, length INTEGER, image);
    CREATE TABLE annotations (image, start INTEGER, length INTEGER, PRIMARY KEY (image, start)) WITHOUT ROWID;
    CREATE TABLE images (place INTEGER PRIMARY KEY, id UNIQUE, start INTEGER, length INTEGER, name TEXT,
        clash INTEGER DEFAULT 0);
    CREATE TABLE facts (name TEXT PRIMARY KEY, value);
"""


class CocoIndex:
    """Random access to a COCO file.

    Args:
        file: the path.
        name_of: the file name of an ``images`` entry, "" for one that lacks what a picture needs; it counts
            the reason.
        skipped: gets what was counted when the index was made, also where the index is only opened.

    Attributes:
        ids: id of each picture, in the file's order: of records that name one file the first one's, and of
            two records with one id the later counts.
        again: number of records that name a file which an earlier one names.
        categories: the ``categories`` records.

    Raises:
        UserError: the file cannot be read, is no JSON or no COCO JSON.
    """

    def __init__(self, file: str, name_of: Callable[[object, Counter], str], skipped: Counter):
        self.file = file
        try:
            self._source = open(file, "rb")
            kept = _cache_path(file) if os.path.getsize(file) > KEPT_BYTES else None
        except OSError as error:
            raise UserError(f"--spr_annotations {file}: {error.strerror}") from None
        self._db = _kept(kept, file, name_of) if kept else _built(sqlite3.connect(":memory:"), file, name_of)
        facts = dict(self._db.execute("SELECT name, value FROM facts"))
        skipped.update(json.loads(facts["skipped"]))
        self.categories, self.again = json.loads(facts["categories"]), facts["again"]
        self.ids = Ids.unpacked(facts["ids"])

    def images(self, id: int | str) -> list[dict]:
        """The ``images`` records that name the same file as that of this id, in the file's order; mostly
        one.
        """
        name = "SELECT name FROM images WHERE id = ?"
        same = f"SELECT start, length FROM images WHERE name = ({name}) ORDER BY place"
        return [self._record(start, length) for start, length in self._db.execute(same, (id,))]

    def named(self, name: str) -> int | str | None:
        """The id of the picture whose records name this file, one of `ids`."""
        first = "SELECT id FROM images WHERE name = ? ORDER BY place LIMIT 1"
        row = self._db.execute(first, (_backwards(name),)).fetchone()
        return row and row[0]

    def shared(self, name: str, suffix: str) -> bool:
        """Whether another name than `name` is or ends in the path `suffix`: ``a.jpg`` is one of
        ``cam2/a.jpg``.
        """
        end = _backwards(suffix)
        others = "SELECT 1 FROM images WHERE (name = ? OR name >= ? AND name < ?) AND name != ? LIMIT 1"
        return self._db.execute(others, (end, f"{end}/", f"{end}0", _backwards(name))).fetchone() is not None

    def annotations(self, id: int | str) -> list:
        """The ``annotations`` records of an image id, in the file's order."""
        spans = self._db.execute(
            "SELECT start, length FROM annotations WHERE image = ? ORDER BY start", (id,)
        )
        return [self._record(start, length) for start, length in spans]

    def _record(self, start: int, length: int):
        self._source.seek(start)
        try:
            return parse_json(self._source.read(length).decode("utf-8", "replace"))
        except ValueError as error:
            raise UserError(
                f"--spr_annotations {self.file}: not JSON (record at byte {start}: {error})"
            ) from None


class Ids(Sequence):
    """Ids by the million: eight bytes each, unless some are text.

    Args:
        ids: the ids.
        kind: what each is given as.
    """

    def __init__(self, ids: array | list, kind: Callable = lambda id: id):
        self._ids, self._kind = ids, kind

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, number):
        chosen = self._ids[number]
        return Ids(chosen, self._kind) if isinstance(number, slice) else self._kind(chosen)

    def __iter__(self) -> Iterator:
        return map(self._kind, self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def as_text(self) -> Ids:
        return Ids(self._ids, str)

    def packed(self) -> bytes | str:
        """As SQLite keeps it; `unpacked` reads it back."""
        return self._ids.tobytes() if isinstance(self._ids, array) else json.dumps(self._ids)

    @classmethod
    def unpacked(cls, packed: bytes | str) -> Ids:
        return cls(array("q", packed) if isinstance(packed, bytes) else json.loads(packed))


def _backwards(name: str) -> str:
    """A path as the index keeps it, from its end: names that share a suffix stand together. ``..`` stays,
    since it may lead through a link.
    """
    root = [""] if name.startswith("/") else []
    return "/".join([*reversed([part for part in name.split("/") if part not in ("", ".")]), *root])


def _cache_path(file: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spr_plugin"
    return folder / digest([content(file), os.stat(file).st_mtime_ns, SCHEMA])


def _kept(path: Path, file: str, name_of) -> sqlite3.Connection:
    """The index in the cache folder, ``PATH-CHECKSUM.sqlite``; made first, as a whole, if no sound one is
    there.
    """
    draft = draft_of(path)
    try:
        for known in path.parent.glob(f"{path.name}-*.sqlite"):
            with contextlib.suppress(FileNotFoundError):  # another process has found it damaged too
                if _summed(known, path) == known:
                    return sqlite3.connect(known)
                say(f"{known}, the index of {file}, is damaged and is made again")
                known.unlink()
        say(f"indexing {file} into {path.parent}, once")
        path.parent.mkdir(parents=True, exist_ok=True)
        _built(sqlite3.connect(draft), file, name_of).close()
        made = _summed(draft, path)
        put(draft, made)
        return sqlite3.connect(made)
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(
            f"{path.parent}: cannot keep the index of {file} ({error}); point XDG_CACHE_HOME, and"
            " TMPDIR, where it is sorted, to folders with room"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _summed(index: Path, path: Path) -> Path:
    """The name under which an index with this content is kept."""
    checksum = 0
    with open(index, "rb") as file:
        while part := file.read(CHUNK):
            checksum = zlib.crc32(part, checksum)
    return path.with_name(f"{path.name}-{checksum:08x}.sqlite")


def _built(db: sqlite3.Connection, file: str, name_of) -> sqlite3.Connection:
    """Fill ``db`` with the index of ``file``, in one pass over it."""
    db.executescript(SCHEMA)
    facts = _in_order(db, file, *_as_it_stands(db, file, name_of))
    db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
    db.commit()
    db.execute("DROP TABLE scattered")
    return db


def _as_it_stands(db: sqlite3.Connection, file: str, name_of) -> tuple[Counter, list]:
    """Read the file once: its images and, ``scattered``, its annotations. What was left out so far, by
    reason; the categories.
    """
    skipped, categories = Counter[str](), list[object]()
    with open(file, "rb") as source:
        stream = RecordStream(source, file)
        missing = set(LISTS)
        for name in stream.lists():
            missing.discard(name)
            if name == "categories":
                categories += [record for _, _, record in stream.elements(stream.value)]
            elif name == "images":
                read = stream.elements(stream.value)
                named = ((start, length, record, name_of(record, skipped)) for start, length, record in read)
                before = db.total_changes
                db.executemany(
                    "INSERT INTO images (start, length, id, name) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET start = excluded.start, length = excluded.length, "
                    "clash = clash OR name != excluded.name",
                    (
                        (start, length, record["id"], _backwards(name))
                        for start, length, record, name in named
                        if name and is_id(record["id"])
                    ),
                )
                skipped["duplicate_image_id"] += db.total_changes - before
            else:
                db.executemany("INSERT INTO scattered VALUES (?, ?, ?)", stream.elements(stream.annotation))
    if missing:
        raise UserError(
            f"{file} has no '{min(missing, key=LISTS.index)}' list: --spr_annotations wants COCO JSON"
        )
    skipped["duplicate_image_id"] -= _number(db, "SELECT count(*) FROM images")
    return skipped, categories


def _in_order(db: sqlite3.Connection, file: str, skipped: Counter, categories: list) -> dict:
    """Sort what was read by pictures, and count what is told of the whole file."""
    # So that a picture's stand together however they are strewn over the file.
    owned = "SELECT image, start, length FROM scattered WHERE image NOT NULL ORDER BY image, start"
    db.execute(f"INSERT INTO annotations {owned}")
    per_image = "SELECT image, count(*) AS n FROM annotations GROUP BY image"
    skipped["unknown_image"] = _number(db, "SELECT count(*) FROM scattered WHERE image IS NULL") + _number(
        db, f"SELECT sum(n) FROM ({per_image}) WHERE image NOT IN (SELECT id FROM images)"
    )
    for id, name in db.execute("SELECT id, name FROM images WHERE clash LIMIT 1"):
        first = _backwards(name)
        raise UserError(
            f"--spr_annotations {file}: image id {id} is that of {first} and of another file, so that their"
            " objects cannot be told apart: give each its own id"
        )
    db.execute("CREATE INDEX by_name ON images (name)")
    firsts = "SELECT min(place) FROM images GROUP BY name"
    of_firsts = db.execute(f"SELECT id FROM images WHERE place IN ({firsts}) ORDER BY place")
    texts = _number(db, "SELECT count(*) FROM images WHERE typeof(id) = 'text'")
    ids = Ids(list(chain.from_iterable(of_firsts)) if texts else array("q", chain.from_iterable(of_firsts)))
    return {
        "skipped": json.dumps(+skipped),
        "categories": json.dumps(categories),
        "again": _number(db, "SELECT count(*) FROM images") - len(ids),
        "ids": ids.packed(),
    }


def _number(db: sqlite3.Connection, query: str) -> int:
    return db.execute(query).fetchone()[0] or 0
