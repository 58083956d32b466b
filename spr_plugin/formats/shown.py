"""A text as it is shown: escaped, full-width and raised characters are what they stand for."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_FOREIGN = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});|[^\x00-\x7f]", re.IGNORECASE)


def as_shown(text: str) -> tuple[str, Sequence[int]]:
    """`text` as it is shown, in plain characters, and where in `text` each of them and its end lie."""
    if text.isascii() and "&" not in text:
        return text, range(len(text) + 1)
    pieces, offsets, end = [], [], 0
    for foreign in _FOREIGN.finditer(text):
        plain = _plain(foreign.group())
        pieces += [text[end : foreign.start()], plain]
        offsets += [*range(end, foreign.start()), *[foreign.start()] * len(plain)]
        end = foreign.end()
    return "".join(pieces) + text[end:], [*offsets, *range(end, len(text) + 1)]


@lru_cache(maxsize=4096)
def _plain(foreign: str) -> str:
    """The character that an entity or a character beyond ASCII stands for."""
    shown = html.unescape(foreign)
    plain = unicodedata.normalize("NFKC", shown)
    kind = unicodedata.category(plain) if len(plain) == 1 else ""
    if (not plain.isascii() and kind in ("Ps", "Pe")) or plain in ("«", "»"):
        return "(" if kind in ("Ps", "Pi") else ")"
    if kind in ("Pi", "Pf"):
        return '"'
    return " " if kind.startswith("C") else plain if kind else foreign if foreign[0] == "&" else shown
