"""The one way to read text that people wrote: files of text, JSON, JSON lines and settings.

What a user's file may be: UTF-8 with or without a byte-order mark, UTF-16 or UTF-32; lines that end in any of
the usual ways, blank ones among them. A line ends at a line feed or carriage return alone: U+2028 and the
like may stand in a JSON string. Two rules hold wherever text enters:

* half a surrogate pair (an emoji that was cut, ``"\\ud83d"``) becomes U+FFFD: no file could hold it;
* a whole number too large for a float is infinite, as ``1e999`` is.

Nothing else is mended: what cannot be read is a UserError of one line that begins with `name`, the words by
which the caller knows the file (``--spr_exclude FILE``). Standard library, and PyYAML where YAML is read.
"""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from spr_plugin.errors import UserError

_DIGITS = 308  # so many fit a float, whatever they are
_HALF = re.compile("[\ud800-\udfff]")
# An escape in a JSON string: of two halves that belong together, of half a pair, or any other.
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# --- text


def sound(text: str) -> str:
    """`text` without halves of surrogate pairs: two that belong together are joined, any other is U+FFFD."""
    if text.isascii() or not _HALF.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_text(path, name: str) -> str:
    """The text of a file, each of its lines ended by a line feed."""
    with _opened(path, name) as file:
        return file.read()


def read_lines(path, name: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of each line that is not blank."""
    with _opened(path, name) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\n")


def encoding_of(start: bytes) -> str:
    """The encoding of a text that begins with these bytes, by its byte-order mark or its zeros."""
    return json.detect_encoding(start)


@contextlib.contextmanager
def _opened(path, name: str):
    try:
        with open(path, "rb") as content:
            # Once: a pipe (``<(command)``) has nothing a second time.
            encoding = encoding_of(content.peek(4)[:4])
            with io.TextIOWrapper(content, encoding) as file:
                yield file
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from None
    except UnicodeError as error:
        raise UserError(f"{name}: is not {encoding} ({error}); save it as UTF-8") from None
    except ValueError as error:  # of a path that no file can have
        raise UserError(f"{name}: {error}") from None


# --- JSON


def whole_number(digits: str) -> int | float:
    """A JSON whole number; one that no float can hold is infinite."""
    return int(digits) if len(digits) <= _DIGITS else float(digits)


_decoder = json.JSONDecoder(parse_int=whole_number)
scan = _decoder.scan_once  # type: ignore[attr-defined]  # (text, place) → (value, its end); StopIteration, ValueError or RecursionError


def parse_json(text: str) -> object:
    """What a JSON text says. Raises ValueError, and nothing else, for one that cannot be read."""
    try:
        return _decoder.decode(_joined(text))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path, name: str) -> object:
    """What a JSON file says."""
    return _parsed(read_text(path, name), name)


def read_json_lines(path, name: str) -> Iterator[tuple[int, object]]:
    """(number of its line, value) of each value in a file of JSON lines."""
    for number, line in read_lines(path, name):
        yield number, _parsed(line, f"{name}, line {number}")


def _parsed(text: str, name: str) -> object:
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"{name}: not JSON ({error})") from None


def _joined(text: str) -> str:
    """A JSON text in whose strings no half of a surrogate pair stands, plain or escaped."""
    if "\\u" in text and _HALF_ESCAPED.search(text):
        text = _ESCAPE.sub(lambda escape: r"\ufffd" if escape["half"] else escape[0], text)
    return sound(text)


# --- settings


def read_settings(path, name: str, yaml: bool = False) -> dict[str, Any]:
    """The table of settings in a JSON file, or in a YAML file.

    No key stands there twice, and each is text. Numbers are as PyYAML reads them, which takes ``5e-7`` for a
    text.
    """
    text = read_text(path, name)
    try:
        settings = _yaml(text) if yaml else _settings.decode(_joined(text))
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"{name}: cannot be read ({why})") from None
    if not isinstance(settings, dict):
        raise UserError(f"{name}: not a table of settings")
    return settings


def _table(pairs) -> dict:
    """A table of (key, value) pairs. ValueError names a key that stands there twice, or is no text."""
    table = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"the key {key!r} is no text: put it in quotes")
        if key in table:
            raise ValueError(f"{key} stands there twice")
        table[key] = value
    return table


_settings = json.JSONDecoder(parse_int=whole_number, object_pairs_hook=_table)


def _yaml(text: str) -> object:
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            own = (pair for pair in node.value if pair[0].tag != "tag:yaml.org,2002:merge")
            _table((self.construct_object(key, True), None) for key, _ in own)
            return super().construct_mapping(node, deep)

        def construct_scalar(self, node):
            value = super().construct_scalar(node)
            return sound(value) if isinstance(value, str) else value

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(error) from None
    except (OverflowError, TypeError, AttributeError, KeyError, IndexError) as error:
        # What PyYAML meets in a timestamp, a number or a tag that is none.
        raise ValueError(f"{type(error).__name__}: {error}") from None
