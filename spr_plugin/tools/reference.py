"""The tables of docs/write-a-plugin.md and docs/write-a-host.md, from signatures and docstrings."""

import inspect
import re

from spr_plugin import hookspecs
from spr_plugin.foreign import methods
from spr_plugin.formats import BoxFormat
from spr_plugin.recipes.base import Recipe
from spr_plugin.recipes.spr.models import Detector, Scorer, Similarity
from spr_plugin.training.host import Answering, Host

ATTRIBUTE, ROLE = re.compile(r"^ {8}(\w+): (.*)$", re.MULTILINE), re.compile(r":\w+:`([^`]+)`")


def hooks_table() -> str:
    """Every hook with its arguments, and what it returns."""
    hooks = [value for name, value in vars(hookspecs).items() if name.startswith("spr_")]
    return _table("hook", "what you return", ((_call(hook), hook.__doc__) for hook in hooks))


def objects_table() -> str:
    """The methods of what the hooks return, and of a box format those that a family writes itself."""
    rows: list[tuple[type, str]] = [
        (kind, name) for kind in (Scorer, Similarity, Detector, Recipe) for name in methods(kind)
    ]
    rows += [(BoxFormat, name) for name in methods(BoxFormat) if name in BoxFormat.__abstractmethods__]
    return _table(
        "method",
        "what it gives",
        ((f"{kind.__name__}.{_call(vars(kind)[name])}", vars(kind)[name].__doc__) for kind, name in rows),
    )


def host_table() -> str:
    """A host's attributes, then its methods."""
    told = dict(ATTRIBUTE.findall(Host.__doc__ or ""))
    rows = [(name, told[name]) for name in Host.__annotations__]
    for name, value in {
        **vars(Host),
        **vars(Answering),
        **vars(Host),
    }.items():  # in this order, its own first
        if not name.startswith("_") and (callable(value) or isinstance(value, property)):
            default = "" if name in Host.__abstractmethods__ else " (This one has a default.)"
            rows.append((name if isinstance(value, property) else _call(value), value.__doc__ + default))
    return _table("attribute or method", "what it is", rows)


def _call(function) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"{function.__name__}({', '.join(names)})"


def _table(left: str, right: str, rows) -> str:
    return "\n".join(
        [f"| {left} | {right} |", "|---|---|", *(f"| `{name}` | {_markdown(text)} |" for name, text in rows)]
    )


def _markdown(docstring: str) -> str:
    """A docstring as one line of Markdown."""
    text = ROLE.sub(r"``\1``", " ".join(docstring.split()))
    return text.replace("``", "`").replace("|", "\\|")


TABLES = {"hooks": hooks_table, "objects": objects_table, "host": host_table}
