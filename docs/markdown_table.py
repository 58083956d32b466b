"""A table as Markdown has it."""

from collections.abc import Iterable


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], right: int = 0) -> str:
    """A Markdown table whose last `right` columns are numbers."""
    heads = list(heads)
    lines = [heads, ["---"] * (len(heads) - right) + ["--:"] * right]
    return "\n".join(
        "| " + " | ".join(cells).replace("\n", " ") + " |" for cells in [*lines, *map(list, rows)]
    )
