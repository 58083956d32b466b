"""Where the records of a COCO-format JSON file lie in it, so that any picture's are read without the rest:
for Objects365, 6 GB in one file.

The file is streamed once; an SQLite table keeps, of each image and annotation record, its id and its place in
the file, and of images the file name. The records stay where they are and are parsed by ``json`` when asked
for, so the index knows no other field of them. The index of a file above ``KEPT_BYTES`` is kept in the user's
cache folder (``XDG_CACHE_HOME``) under the file's fingerprint and its own checksum: one that was damaged
since is made again.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import content, draft_of, put
from spr_plugin.ids import digest
from spr_plugin.loading import encoding_of, parse_json, scan
from spr_plugin.progress import say

LISTS = ("images", "annotations", "categories")
KEPT_BYTES = 32 << 20
CHUNK = 4 << 20
LONGEST_RECORD = 256 << 20  # what is longer and does not parse is taken for broken
SPACE = re.compile(r"[ \t\r\n]*")
IMAGE_ID = re.compile(r'"image_id"\s*:\s*(-?\d{1,18})\s*[,}]')
SCHEMA = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; PRAGMA temp_store = FILE;
    CREATE TABLE images (place INTEGER PRIMARY KEY, id UNIQUE, start INTEGER, length INTEGER, name TEXT,
        again INTEGER DEFAULT 0, clash INTEGER DEFAULT 0);
    CREATE TABLE annotations (start INTEGER PRIMARY KEY, length INTEGER, image);
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
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
        facts = {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM facts")}
        skipped.update(facts["skipped"])
        self.categories, self.again = facts["categories"], facts["again"]
        self.ids = [id for (id,) in self._db.execute("SELECT id FROM images WHERE NOT again ORDER BY place")]

    def images(self, id: int | str) -> list[dict]:
        """The ``images`` records that name the same file as that of this id, in the file's order; mostly
        one.
        """
        name = "SELECT name FROM images WHERE id = ?"
        same = f"SELECT start, length FROM images WHERE name = ({name}) ORDER BY place"
        return [self._record(start, length) for start, length in self._db.execute(same, (id,))]

    def named(self, name: str) -> int | str | None:
        """The id of the picture whose records name this file, one of `ids`."""
        first = "SELECT id FROM images WHERE name = ? AND NOT again"
        row = self._db.execute(first, (_backwards(name),)).fetchone()
        return row and row[0]

    def shared(self, name: str, tail: str) -> bool:
        """Whether another name than `name` is or ends in the path `tail`: ``a.jpg`` is a tail of
        ``cam2/a.jpg``.
        """
        end = _backwards(tail)
        others = "SELECT 1 FROM images WHERE (name = ? OR name >= ? AND name < ?) AND name != ? LIMIT 1"
        return self._db.execute(others, (end, f"{end}/", f"{end}0", _backwards(name))).fetchone() is not None

    def annotations(self, id: int | str) -> list:
        """The ``annotations`` records of an image id, in the file's order."""
        places = self._db.execute(
            "SELECT start, length FROM annotations WHERE image = ? ORDER BY start", (id,)
        )
        return [self._record(start, length) for start, length in places]

    def _record(self, start: int, length: int):
        self._source.seek(start)
        try:
            return parse_json(self._source.read(length).decode("utf-8", "replace"))
        except ValueError as error:
            raise UserError(
                f"--spr_annotations {self.file}: not JSON (record at byte {start}: {error})"
            ) from None


def _backwards(name: str) -> str:
    """A path as the index keeps it, from its end: names that share a tail stand together. ``..`` stays, since
    it may lead through a link.
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
            f"{path.parent}: cannot keep the index of {file} ({error}); point XDG_CACHE_HOME to a folder with"
            " room"
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
    skipped, categories = Counter(), []
    with open(file, "rb") as source:
        stream = _Stream(source, file)
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
                        if name and _is_id(record["id"])
                    ),
                )
                skipped["duplicate_image_id"] += db.total_changes - before
            else:
                db.executemany("INSERT INTO annotations VALUES (?, ?, ?)", stream.elements(stream.annotation))
    if missing:
        raise UserError(
            f"{file} has no '{min(missing, key=LISTS.index)}' list: --spr_annotations wants COCO JSON"
        )
    db.execute("CREATE INDEX by_image ON annotations (image)")
    skipped["duplicate_image_id"] -= _number(db, "SELECT count(*) FROM images")
    per_image = "SELECT image, count(*) AS n FROM annotations GROUP BY image"
    skipped["unknown_image"] = _number(
        db, f"SELECT sum(n) FROM ({per_image}) WHERE image IS NULL OR image NOT IN (SELECT id FROM images)"
    )
    for id, name in db.execute("SELECT id, name FROM images WHERE clash LIMIT 1"):
        first = _backwards(name)
        raise UserError(
            f"--spr_annotations {file}: image id {id} is that of {first} and of another file, so that their"
            " objects cannot be told apart: give each its own id"
        )
    db.execute("CREATE INDEX by_name ON images (name)")
    db.execute("UPDATE images SET again = 1 WHERE place NOT IN (SELECT min(place) FROM images GROUP BY name)")
    again = _number(db, "SELECT count(*) FROM images WHERE again")
    facts = {"skipped": +skipped, "categories": categories, "again": again}
    db.executemany(
        "INSERT INTO facts VALUES (?, ?)", ((name, json.dumps(value)) for name, value in facts.items())
    )
    db.commit()
    return db


def _number(db: sqlite3.Connection, query: str) -> int:
    return db.execute(query).fetchone()[0] or 0


def _is_id(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63)


class _Stream:
    """A JSON file as it is read: its text from the byte ``base`` on, one character a byte (Latin-1), and the
    place ``at`` in it.
    """

    def __init__(self, source, file: str):
        self.source, self.file = source, file
        start = source.read(4)
        if not encoding_of(start).startswith("utf-8"):
            raise UserError(f"--spr_annotations {file}: is {encoding_of(start)}; save it as UTF-8")
        self.base = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        source.seek(self.base)
        self.text, self.at, self.ended = "", 0, False

    def lists(self) -> Iterator[str]:
        """Names of the lists of LISTS in the outermost object; the caller reads each one's elements before it
        asks for the next.
        """
        if self._next() != "{":
            return
        self._take("{")
        while self._next() == '"':
            _, _, name = self.value()
            self._take(":")
            if name in LISTS and self._next() == "[":
                yield name
            else:
                self.value()
            if self._take(",}") == "}":
                return
        self._take("}")

    def elements(self, read: Callable) -> Iterator:
        """What ``read`` makes of each element of the list at this place."""
        self._take("[")
        if self._next() == "]":
            self._take("]")
            return
        while True:
            yield read()
            if self.text.startswith(",", self.at):
                self.at += 1
            elif self._take(",]") == "]":
                return

    def value(self) -> tuple[int, int, object]:
        """(byte where it starts, length in bytes, value) of the JSON value at this place."""
        self._next()
        while True:
            try:
                value, end = scan(self.text, self.at)
                if (
                    end + 3 < len(self.text) or self.ended
                ):  # "1" at the end of the text may be the beginning of "1.5" or "1e-5"
                    break
            except RecursionError:
                raise self._broken("nested too deep") from None
            except (StopIteration, ValueError) as error:
                if self.ended or len(self.text) - self.at > LONGEST_RECORD:
                    raise self._broken(error) from None
            self._more()
        start, raw = self.base + self.at, self.text[self.at : end]
        self.at = end
        if not raw.isascii() or "\\u" in raw:
            value = parse_json(raw.encode("latin-1").decode("utf-8", "replace"))
        return start, len(raw), value

    def annotation(self) -> tuple[int, int, int | str | None]:
        """(start, length, ``image_id``) of the record at this place.

        A record without objects or escapes inside ends at the first brace that is not in a string, and any
        ``"image_id":`` in it is its key, so it need not be parsed.
        """
        text, at = self.text, self.at + self.text.startswith(" ", self.at)
        end = text.find("}", at) + 1
        if (
            end
            and text[at] == "{"
            and text.count("{", at, end) == 1
            and text.count('"', at, end) % 2 == 0
            and text.find("\\", at, end) < 0
        ):
            if image_id := IMAGE_ID.search(text, at, end):
                self.at = end
                return self.base + at, end - at, int(image_id[1])
        start, length, record = self.value()
        image = record.get("image_id") if isinstance(record, dict) else None
        return start, length, image if _is_id(image) else None

    def _next(self) -> str:
        """The next character that is no white space, not taken yet; "" at the end of the file."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches nothing too
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def _take(self, expected: str) -> str:
        character = self._next()
        if not character or character not in expected:
            raise self._broken(f"{' or '.join(expected)} expected")
        self.at += 1
        return character

    def _more(self) -> None:
        rest = self.text[self.at :]
        read = self.source.read(max(CHUNK, len(rest)))
        self.base += self.at
        self.text, self.at, self.ended = rest + read.decode("latin-1"), 0, not read

    def _broken(self, why) -> UserError:
        return UserError(f"--spr_annotations {self.file}: not JSON (near byte {self.base + self.at}: {why})")
