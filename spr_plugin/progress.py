"""Lines of ours: one of progress a stage (a bar in a terminal, a plain line now and then elsewhere), counts
in words.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping

from spr_plugin.lines import say

SECONDS_BETWEEN_LINES = 60


class Progress:
    """A bar on a terminal, else a plain line now and then and one at the end: rate, time left and a note.

    Args:
        done: of the ``total`` items before this process went on with them.
        show: False on all ranks but one.
        bars: False for lines on a terminal too.
    """

    def __init__(self, stage: str, total: int, done: int = 0, show: bool = True, bars: bool = True):
        self.stage, self.total, self.first = stage, total, done
        self.shown, self.bar = show and total > 0, None
        self.start = self.last = time.monotonic()
        if self.shown and bars and sys.stderr.isatty():
            from tqdm import tqdm  # half of what `spr status` would take to start

            self.bar = tqdm(total=total, initial=done, desc=f"spr {stage}", dynamic_ncols=True)

    def to(self, done: int, note: str = "") -> None:
        """``done`` items are done now."""
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
        elif self.shown and (time.monotonic() - self.last >= SECONDS_BETWEEN_LINES or done == self.total):
            self.last = time.monotonic()
            rate = (done - self.first) / max(self.last - self.start, 1e-9)
            left = f", {(self.total - done) / rate:.0f} s left" if rate else ""
            say(", ".join(filter(None, [f"{self.stage} {done}/{self.total}", f"{rate:.2f}/s{left}", note])))

    def write(self, text: str) -> None:
        """A line of somebody else's on stdout, which leaves the bar whole."""
        if self.bar is None:
            print(text)
        else:
            self.bar.write(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def progress(items: Iterable, total: int, stage: str, note=lambda: "", *, show: bool = True) -> Iterator:
    """Yield ``items`` and show how far they are; ``note()`` says what is skipped so far."""
    shown = Progress(stage, total, show=show)
    try:
        for done, item in enumerate(items, 1):
            yield item
            shown.to(done, note())
    finally:
        shown.close()


def counted(reasons: Iterable[str]) -> dict[str, int]:
    """Reason → how often, most frequent first."""
    counts = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    # Most frequent first, of equals by name.
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def listed(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, for a line."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())


SHOWN = 8  # names in a line


def some(names: list[str]) -> str:
    """Names for a line, which stays one where they are many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
