"""What a piece of work takes: seconds and memory."""

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass
class Cost:
    """Seconds, and bytes at the peak: of this rank's GPU, or of the whole process since it began."""

    seconds: float = 0.0
    peak: int = 0

    def __str__(self) -> str:
        of = "" if torch.cuda.is_available() else " of the process"
        return f"{self.seconds:.2f} s, peak {self.peak / 2**30:.2f} GiB{of}"


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Yields a Cost that is filled in when what is done inside is done."""
    cost, cuda = Cost(), torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield cost
    if cuda:
        torch.cuda.synchronize()
    cost.seconds = time.perf_counter() - start
    # ru_maxrss is in KiB on Linux
    cost.peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
