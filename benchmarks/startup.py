"""What a Python start costs with our boot file and without: ``python benchmarks/startup.py --json FILE``.

Each start is a fresh interpreter without site-packages (``-S``) that reads the boot file of one folder as ``site`` does, or an empty folder;
the two take turns. The third row carries ``--spr``: what a training command pays before it imports anything.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
READ = "import site, sys; sys.argv = sys.argv[1:]; sys.path.append({packages!r}); site.addsitedir({folder!r})"


def start(folder: Path, *arguments: str) -> float:
    """Milliseconds of one start that reads the boot files of ``folder``."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    code = READ.format(packages=packages, folder=str(folder))
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code, "train.py", *arguments], check=True, cwd=ROOT)
    return (time.perf_counter() - begin) * 1e3


def measure(starts: int) -> dict:
    """Row → median in ms over ``starts`` starts, the rows alternated, and the medians of the differences within a round."""
    with tempfile.TemporaryDirectory() as scratch:
        ours, empty = Path(scratch, "ours"), Path(scratch, "empty")
        ours.mkdir()
        empty.mkdir()
        shutil.copy(ROOT / "_build" / "spr_plugin.pth", ours)
        rows = {"without boot file": (empty,), "with boot file": (ours,), "with boot file and --spr": (ours, "--spr")}
        rounds = [{name: start(*row) for name, row in rows.items()} for _ in range(starts + 1)][1:]
    medians = {name: statistics.median(one[name] for one in rounds) for name in rows}
    base = "without boot file"
    more = {name: statistics.median(one[name] - one[base] for one in rounds) for name in rows if name != base}
    return {"starts": starts, "python": sys.version.split()[0], "median_ms": medians, "more_ms": more}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--json")
    args = parser.parse_args()
    found = measure(args.starts)
    for name, value in found["median_ms"].items():
        print(f"{name:28s} {value:7.2f} ms" + (f"  {found['more_ms'][name]:+.2f} ms" if name in found["more_ms"] else ""))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
