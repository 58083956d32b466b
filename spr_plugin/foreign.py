"""A plugin's mistakes: its wrong results, and what it raises, become a line with plugin, hook and method."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pluggy

from spr_plugin.errors import UserError

# Where the line of a plugin's own exception is not looked for.
NOT_THEIRS = (str(Path(__file__).parent), str(Path(pluggy.__file__).parent), "<frozen ")


class Broken(Exception):
    """What is wrong with what a plugin gave; :func:`blamed` puts the plugin's name before it."""


@contextlib.contextmanager
def blamed(whom: str):
    """Inside, foreign code runs: a wrong result (Broken), or any exception, is a line that begins with
    `whom`.
    """
    try:
        yield
    except UserError:
        raise
    except Broken as error:
        raise UserError(f"{whom} {error}") from error
    except SystemExit as error:  # this process is not the plugin's to end, and its exit code says nothing
        raise UserError(f"{whom} calls sys.exit({error.code!r}){_line_of(error)}: remove that") from error
    except Exception as error:  # a plugin can raise anything, and a traceback would hide whose mistake it is
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{whom} raised {text}{_line_of(error)}") from error


def _line_of(error: BaseException) -> str:
    """Where in code that is not ours it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(NOT_THEIRS)]
    return "".join(f" ({frame.filename}, line {frame.lineno})" for frame in theirs[-1:])


# --- checks; each raises Broken -----------------------------------------------------------------------------


def listed(given, count: int | None = None, of: str = "") -> list:
    """`given` as a list, of `count` rows if that is known, one for each of what `of` names."""
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__iter__"):
        raise Broken(
            f"gives {kind(given)}, no list" + (f" with a row for each of {count} {of}" if of else "")
        )
    rows = list(given)
    if count is not None and len(rows) != count:
        raise Broken(f"gives {len(rows)} rows for {count} {of}")
    return rows


def number(value, name: str) -> float:
    """A finite number, also one of NumPy or a tensor, as a float."""
    try:
        plain = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError):  # tensors of several numbers raise the last
        plain = math.nan
    if not math.isfinite(plain):
        raise Broken(f"gives {name} {shown(value)}, no finite number")
    return plain


def of_kind(value, wanted: type | tuple[type, ...], name: str = ""):
    """`value`, which is a `wanted`; `name` says what it is in the plugin's result."""
    if not isinstance(value, wanted):
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        named = " or ".join(one.__name__ for one in kinds if one is not type(None))
        raise Broken(f"gives {name}{kind(value)}, no {named}")
    return value


def has(given, attributes: Iterable[str]) -> None:
    """`given` has all of these."""
    missing = [name for name in attributes if not hasattr(given, name)]
    if missing:
        raise Broken(f"gives {kind(given)}, which has no attribute {', '.join(missing)}")


def methods(cls: type) -> list[str]:
    """Names of a class's own methods, in its order."""
    return [name for name, value in vars(cls).items() if not name.startswith("_") and callable(value)]


def kind(value) -> str:
    return "None" if value is None else type(value).__name__


def shown(value) -> str:
    """What fits in a line."""
    return " ".join(repr(value).split())[:60]


class Foreign:
    """What a plugin gave.

    ``with checking("score"):`` makes a wrong result of that method, or any exception, a line that names it.
    """

    def __init__(self, plugin: str, hook: str, given, needed: Sequence[str] = ()):
        self.plugin, self.hook, self.given = plugin, hook, given
        with self.checking():
            missing = [name for name in needed if not callable(getattr(given, name, None))]
            if missing:
                raise Broken(f"gives {kind(given)}, which has no method {', '.join(missing)}")

    def checking(self, method: str = ""):
        return blamed(
            f"plugin {self.plugin}: {self.hook}" + (f", {kind(self.given)}.{method}" if method else "")
        )
