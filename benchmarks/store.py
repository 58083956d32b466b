"""The record log at a million records: cost of an append, and of going on from what a run left.

    python benchmarks/store.py [--records 1000000] [--json FILE]

Wall time, and CPU time beside it for a machine that is shared.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spr_plugin.files import write_json
from spr_plugin.ids import digest
from spr_plugin.runs.log import Log

TEXT = (
    "a blue triangle [0.0, 0.37, 0.28, 0.74], a green diamond [0.0, 0.06, 0.29, 0.34], a purple circle [0.29,"
    " 0.77, 0.53, 0.95] and a white cross [0.25, 0.37, 0.45, 0.6]."
)


def record(number: int) -> dict:
    """What the sampling stage writes: some 470 bytes."""
    return {
        "id": digest(number),
        "query": digest(number // 6),
        "kind": "plain",
        "index": number % 2,
        "raw": TEXT,
        "text": TEXT,
    }


def append(folder: str, count: int) -> dict:
    """Seconds of one append of one record, making the record not counted."""
    log, spent, cpu = Log(folder), 0.0, 0.0
    for start in range(0, count, 10_000):
        records = [record(number) for number in range(start, min(start + 10_000, count))]
        begun, cpu_begun = time.perf_counter(), time.process_time()
        for one in records:
            log.append(one)
        spent += time.perf_counter() - begun
        cpu += time.process_time() - cpu_begun
    begun = time.perf_counter()
    log.close()
    return {
        "append_us": spent / count * 1e6,
        "append_cpu_us": cpu / count * 1e6,
        "close_s": time.perf_counter() - begun,
    }


def resume(folder: str, count: int) -> dict:
    """What a stage does first: check every line and know every id."""
    begun, cpu = time.perf_counter(), time.process_time()
    logged = Log(folder).held()
    seconds = time.perf_counter() - begun
    assert len(logged) == count
    return {"resume_s": seconds, "resume_cpu_s": time.process_time() - cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--json")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        part, folder = arguments.part
        row = {"append": append, "resume": resume}[part](folder, arguments.records)
        return print(
            json.dumps({**row, f"{part}_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
        )
    result = {"records": arguments.records}
    with tempfile.TemporaryDirectory() as folder:
        for part in ("append", "resume"):
            command = [sys.executable, __file__, "--records", str(arguments.records), "--part", part, folder]
            result |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        result["file_mb"] = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    print("\n".join(f"{key:16} {value:,.2f}" for key, value in result.items()))
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
