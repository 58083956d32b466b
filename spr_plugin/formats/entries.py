"""Where the objects of a JSON list lie in a text, and what goes with one that goes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from spr_plugin.formats.attempts import Span
from spr_plugin.formats.parsed import GAP, Edit

CUT, BROKEN = -1, 0
FENCE = "```"
_BRACE_OR_QUOTE = re.compile(r'[{}"]')
_CLOSING_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
_SEPARATOR = re.compile(r"\s*,\s*")
_BRACE = re.compile(r"[{}]")
_LABEL = re.compile(r'"label"\s*:\s*"([^"\\]*)"')
_KEY = re.compile(r'"[^"{}\[\],:]*"\s*:')
_KEY_BEFORE = re.compile(r'"[^"{}\[\],:]*"\s*:\s*"?\Z')
_BEFORE_MEMBER = re.compile(r"([\[{,])\s*\Z")
_AFTER_MEMBER = re.compile(r"\s*([,}\]])\s*")


def is_value(text: str, start: int) -> bool:
    """Whether what starts there stands behind a key, which ends in a quote; a colon alone is a sentence's."""
    # Backwards: the colon, then the quote that ends its key.
    for mark in (":", "\"'"):
        while start and text[start - 1].isspace():
            start -= 1
        if not start or text[start - 1] not in mark:
            return False
        start -= 1
    return True


def label_near(text: str, span: Span) -> str:
    """The label that an object which cannot be read gives, or ""."""
    label = _LABEL.search(text, *span)
    return label[1] if label else ""


def _list_around(text: str, span: Span) -> tuple[re.Match[str], re.Match[str]] | None:
    """What stands on both sides of a member of a list or object, None where `span` is none."""
    before, after = (
        _BEFORE_MEMBER.search(text, max(span[0] - GAP, 0), span[0]),
        _AFTER_MEMBER.match(text, span[1]),
    )
    return (before, after) if before and after else None


def _with_comma(text: str, span: Span) -> Span:
    """`span` with the comma that parts it from what else stays in its list or object."""
    around = _list_around(text, span)
    if not around:
        return span
    before, after = around
    if after[1] == ",":
        return span[0], after.end()
    return (before.start(), after.start(1)) if before[1] == "," else span


def with_key(text: str, span: Span) -> Span:
    """`span` with its key and one comma, where it is a value of an object that stays, as it holds entries."""
    start, end = span
    if not _KEY.match(text, start, end):
        key = _KEY_BEFORE.search(text, max(start - 4 * GAP, 0), start)
        start = key.start() if key else start
        if not key:
            return span
        end += text.startswith('"', end)
    return _with_comma(text, (start, end))


def object_around(text: str, low: int, span: Span, high: int) -> Span:
    """The outermost object in text[low:high] around `span`, or `span` where none is: what is left of a list
    must be one.
    """
    opened: list[int] = []
    outermost = span
    for brace in _BRACE.finditer(text, low, high):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened and (start := opened.pop()) <= span[0] and brace.end() >= span[1]:
            outermost = start, brace.end()
        # All are closed behind the span: what comes is not around it.
        if not opened and brace.end() >= span[1]:
            break
    return outermost


def entries_in(text: str) -> tuple[list[Span], int]:
    """Where the flat JSON objects of a text lie, from the left, and where after them one begins that the
    text's end cuts off, -1 where none does. Braces inside an object's strings are no end of it.

    In linear time: what becomes of an object hangs on the index alone from which it goes on outside its
    strings, so none is gone on from twice.
    """
    quotes = [match.end() for match in _CLOSING_QUOTE.finditer(text)]
    ends: dict[int, int] = {}  # index outside of strings → where the object ends, CUT or BROKEN

    def end_from(index: int) -> int:
        passed: list[int] = []
        end: int | None = None
        while end is None:
            passed.append(index)
            mark = _BRACE_OR_QUOTE.search(text, index)
            if index in ends:
                end = ends[index]
            elif not mark:
                end = CUT
            elif mark[0] != '"':
                end = mark.end() if mark[0] == "}" else BROKEN
            elif (closing := bisect_right(quotes, mark.end())) == len(quotes):
                end = CUT
            else:
                index = quotes[closing]
        # All that were passed end alike: nobody goes this way again.
        ends.update(dict.fromkeys(passed, end))
        return end

    entries: list[Span] = []
    cut, start = -1, text.find("{")
    while start >= 0:
        end = end_from(start + 1)
        if end > 0:
            entries.append((start, end))
        # The first that the text's end cuts off, if no whole object comes behind it.
        cut = -1 if end > 0 else start if end == CUT and cut < 0 else cut
        # CUT and BROKEN are below any start: one goes on behind the brace then.
        start = text.find("{", max(end, start + 1))
    return entries, cut


def cuts(text: str, entries: Sequence[Span], gone: set[Span]) -> list[Edit]:
    """Edits that take entries out of their list with one comma each; a list that the text's end cut off is
    closed.
    """
    cuts: list[Edit] = []
    for run in _runs(text, entries):
        kept = [index for index, entry in enumerate(run) if entry not in gone]
        if not kept:
            alone = run[0][0], run[-1][1]
            cuts.append((_with_comma(text, alone), "" if _list_around(text, alone) else None))
            spans = []
        else:  # with the comma after it, as long as another entry stays there; else with the one before it
            ends = [
                (entry[0], run[index + 1][0]) if index < kept[-1] else (run[index - 1][1], entry[1])
                for index, entry in enumerate(run)
            ]
            spans = [span for span, entry in zip(ends, run) if entry in gone]
        cuts += [(span, "") for span in spans]
        if run[-1] in gone and run[-1][1] == len(text) and not text.endswith("}"):
            # An odd number of fences: the last one is open still.
            cuts[-1] = (cuts[-1][0], "\n]" + f"\n{FENCE}" * (text.count(FENCE) % 2))
    return cuts


def _runs(text: str, entries: Sequence[Span]) -> list[list[Span]]:
    """Entries that only commas separate, together."""
    runs: list[list[Span]] = []
    for entry in entries:
        if runs and _SEPARATOR.fullmatch(text, runs[-1][-1][1], entry[0]):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs
