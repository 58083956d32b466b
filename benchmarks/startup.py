"""What a Python start costs with our boot file and without: ``python benchmarks/startup.py --json FILE``.

Each start is a fresh interpreter. The boot file alone: ``-S``, then ``site`` reads a folder that holds it or
an empty one. With ``--spr``: the installed package, with and without the flag. The rows take turns; wall time
and the process's own time (which a busy machine does not stretch).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spr_plugin.files import write_json

ROOT = Path(__file__).parents[1]
PAIRS = {"boot file": ("with boot file", "without boot file"), "--spr": ("with --spr", "without --spr")}


def start(command: list, cwd: str) -> tuple[float, float]:
    """(wall, own) milliseconds of one start."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE)
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or complaint:
        raise RuntimeError(complaint.decode() or f"exit code {process.returncode}")
    return (time.perf_counter() - begin) * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def start_times(starts: int) -> dict:
    """Row → medians in ms over ``starts`` starts; pair → medians of the differences within a round."""
    with tempfile.TemporaryDirectory() as scratch:
        ours, empty = Path(scratch, "ours"), Path(scratch, "empty")
        ours.mkdir()
        empty.mkdir()
        shutil.copy(ROOT / "_build" / "spr_plugin.pth", ours)
        bare = [sys.executable, "-S", "-c", "import site, sys; site.addsitedir(sys.argv[1])"]
        rows = {
            "without boot file": [*bare, str(empty)],
            "with boot file": [*bare, str(ours)],
            "without --spr": [sys.executable, "-c", "pass", "train.py"],
            "with --spr": [sys.executable, "-c", "pass", "train.py", "--spr"],
        }
        rounds = [
            {name: start(command, scratch) for name, command in rows.items()} for _ in range(starts + 1)
        ][1:]
    results = {"starts": starts, "python": sys.version.split()[0]}
    for index, clock in enumerate(("wall_ms", "own_ms")):
        results[clock] = {
            name: round(statistics.median(one[name][index] for one in rounds), 3) for name in rows
        }
        more = {
            pair: statistics.median(one[with_it][index] - one[without][index] for one in rounds)
            for pair, (with_it, without) in PAIRS.items()
        }
        results[f"more_{clock}"] = {pair: round(value, 3) for pair, value in more.items()}
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--json")
    args = parser.parse_args()
    results = start_times(args.starts)
    for name, wall in results["wall_ms"].items():
        print(f"{name:20s} {wall:8.2f} ms wall {results['own_ms'][name]:8.2f} ms own")
    for pair in PAIRS:
        print(
            f"{pair:20s} {results['more_wall_ms'][pair]:+8.2f} ms wall {results['more_own_ms'][pair]:+8.2f}"
            " ms own"
        )
    if args.json:
        write_json(args.json, results)


if __name__ == "__main__":
    main()
