"""The records of a COCO-format JSON file one after the other, each with its place in the file. No more of it
is in memory than a few megabytes, or its longest record.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator

from spr_plugin.errors import UserError
from spr_plugin.loading import encoding_of, parse_json, scan

LISTS = ("images", "annotations", "categories")
CHUNK = 4 << 20
LONGEST_RECORD = 256 << 20  # what is longer and does not parse is taken for broken
SPACE = re.compile(r"[ \t\r\n]*")
IMAGE_ID = re.compile(r'"image_id"\s*:\s*(-?\d{1,18})\s*[,}]')


def is_id(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63)


class RecordStream:
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
                raise self._broken("it is nested too deep") from None
            except (StopIteration, ValueError) as error:
                if self.ended or len(self.text) - self.at > LONGEST_RECORD:
                    raise self._broken(*_why(error)) from None
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
        return start, length, image if is_id(image) else None

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

    def _broken(self, why: str, at: int | None = None) -> UserError:
        """What is wrong at the place ``at`` of the text, or at this one."""
        at = self.at if at is None else at
        if self.ended and not self.text[at:].strip():
            why = "the file ends there"
        return UserError(f"--spr_annotations {self.file}: not JSON (near byte {self.base + at}: {why})")


def _why(error: StopIteration | ValueError) -> tuple[str, int | None]:
    """What JSON's reader found, in words, and where in the text; it counts from the text's begin."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg.removesuffix(" starting at"), error.pos
    if isinstance(error, StopIteration):
        return "a value expected", error.value
    return str(error), None
