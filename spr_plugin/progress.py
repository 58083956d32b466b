"""Lines of ours: one of progress a stage (a bar in a terminal, a plain line now and then elsewhere), counts
in words.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping

from tqdm import tqdm

from spr_plugin.lines import say

SECONDS_BETWEEN_LINES = 30


def progress(items: Iterable, total: int, stage: str, note=lambda: "", *, show: bool = True) -> Iterator:
    """Yield ``items`` and show rate, ETA and ``note()`` (skips so far). ``show`` is False on all ranks but
    one.
    """
    if not show or not total:
        yield from items
    elif sys.stderr.isatty():
        with tqdm(items, total=total, desc=f"spr {stage}", dynamic_ncols=True) as bar:
            for item in bar:
                yield item
                bar.set_postfix_str(note())
    else:
        yield from _plain_lines(items, total, stage, note)


def _plain_lines(items, total, stage, note):
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last, rate = now, done / max(now - start, 1e-9)
            say(f"{stage} {done}/{total}, {rate:.2f}/s, {(total - done) / rate:.0f} s left {note()}".rstrip())


def counted(reasons: Iterable[str]) -> dict[str, int]:
    """Reason → how often, most frequent first."""
    counts = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def listed(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, for a line."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())


SHOWN = 8  # names in a line


def some(names: list[str]) -> str:
    """Names for a line, which stays one where they are many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
