"""What goes wrong between machines: a rank that dies, a damaged log, another run on the same folder. The same
command, on two launchers, finishes.
"""

import subprocess
import tempfile
import time

import psutil
import pytest

from spr_plugin.files import read_json
from spr_plugin.runs.log import Log

from .checks import assert_saved_equals_live, assert_whole
from .launch import ROOT, command, environment, free_port, kill, run, spr_flags

pytestmark = pytest.mark.slow


def test_a_rank_dies_a_line_is_damaged_and_two_launchers_finish(world, tmp_path):
    out = tmp_path / "llava"
    with tempfile.TemporaryFile("w+") as output:
        arguments = command(world, out, *spr_flags(world), ranks=2)
        process = subprocess.Popen(
            arguments, env=environment(), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        try:
            wait_for(lambda: Log(out / "spr" / "candidates").read(), process)
            doomed = rank_1(process)
            doomed.suspend()  # the run must not end before the other one was refused
            refused = run(arguments, expect=2)
            doomed.kill()
            killed = time.monotonic()
            assert process.wait(60) != 0
        finally:
            if process.poll() is None:
                kill(process)
        output.seek(0)
        printed = output.read()
    assert time.monotonic() - killed < 60
    assert "rank      : 1" in printed and "Signal 9" in printed, printed[-3000:]
    assert f"spr: error: {out}/spr is in use by process" in refused
    held = dict(Log(out / "spr" / "candidates").read())
    log = next(path for path in sorted((out / "spr" / "candidates").glob("*.jsonl")) if path.stat().st_size)
    first, *others = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first[:-9] + b"\xff\n" + b"".join(others))
    printed = two_launchers(world, out)
    assert (
        f"{log}:1 is damaged" in printed
        and log.with_suffix(".damaged").read_bytes() == first[:-9] + b"\xff\n"
    )
    assert_whole(out)
    assert_saved_equals_live(out)
    records = Log(out / "spr" / "candidates").read()
    assert {id: records[id] for id in held} == held
    assert read_json(out / "spr" / "exit.json")["engine"] == "DistributedDataParallel"


def two_launchers(world, out) -> str:
    """``torchrun --nnodes 2``, one launcher for each "machine"; the joined output."""
    rendezvous = "--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_id spr --rdzv_endpoint".split()
    rendezvous += [f"localhost:{free_port()}"]
    python, *torchrun = command(world, out, *spr_flags(world), ranks=2)
    place = torchrun.index("--standalone")
    arguments = [python, *torchrun[:place], *rendezvous, *torchrun[place + 3 :]]
    with tempfile.TemporaryFile("w+") as output:
        nodes = [
            subprocess.Popen(arguments, env=environment(), stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
            for _ in range(2)
        ]
        try:
            codes = [node.wait(400) for node in nodes]
        finally:
            [kill(node) for node in nodes if node.poll() is None]
        output.seek(0)
        printed = output.read()
    assert codes == [0, 0], printed[-5000:]
    return printed


def rank_1(launcher: subprocess.Popen) -> psutil.Process:
    workers = [
        child
        for child in psutil.Process(launcher.pid).children(recursive=True)
        if "llava.train.train" in child.cmdline()
    ]
    (found,) = [worker for worker in workers if worker.environ().get("RANK") == "1"]
    return found


def wait_for(reached, process, timeout=300) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before"
        time.sleep(0.05)


def test_an_output_folder_that_cannot_be_written(world, tmp_path):
    out = tmp_path / "llava"
    out.mkdir()
    (out / "spr").write_text("a file where a folder must be")
    printed = run(command(world, out, *spr_flags(world)), expect=2)
    (line,) = [line for line in printed.splitlines() if line.startswith("spr: error:")]
    assert f"{out}/spr" in line and "Traceback" not in printed and "'loss'" not in printed
