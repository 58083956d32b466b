"""One progress line a stage: a bar in a terminal, a plain line now and then elsewhere."""

import sys
import time
from typing import Iterable, Iterator

from tqdm import tqdm

from spr_plugin.lines import say

SECONDS_BETWEEN_LINES = 30


def progress(items: Iterable, total: int, stage: str, note=lambda: "", *, show: bool = True) -> Iterator:
    """Yield ``items`` and show rate, ETA and ``note()`` (skips so far). ``show`` is False on all ranks but one."""
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
