"""How far a run is, told from folders in every state, and what is no run in one line."""

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from spr_plugin import runs
from spr_plugin.boxes import Box, Space
from spr_plugin.cli import commands, main
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.queries import log_queries
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.runs.layout import LAYOUT, Folder
from spr_plugin.runs.log import note_begin
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.runs.steps import StepLog
from spr_plugin.tools import status
from spr_plugin.tools.status import lines_of, read_status, status_of

SPACE = Space.pixels(90, 60)
CUP = Annotation(1, "cup", Box(5, 5, 30, 40, SPACE), False)
BOX = {"family": "llava", "space": "padded_square", "aspect": "pad"}


def bound(path, stages=5) -> Folder:
    """A run that has chosen four regions, and trains the host's model now."""
    folder = Folder(path)
    settings = settings_of(SPRConfig(spr=True, spr_prompts=["plain"], spr_samples=2), BOX)
    bind(folder, dict(list(settings.items())[:stages]), Changes({}, ()))
    image = AnnotatedImage("a", "/nowhere/a.png", 90, 60, (CUP,))
    queries = [region_query(image, Box(0, 0, 50 + n, 50, SPACE), 3) for n in range(4)]
    log_queries(folder, SPR(SPRConfig(), None), queries, {"missing_image": 2})
    return folder


def answering(path) -> Folder:
    """Five of eight answers: one from a process before, three and one by the ranks of the one that died."""
    folder = bound(path)
    write_json(folder.entry / "index.json", {})
    folder.log("candidates").append({"id": "c0"})
    note_begin(folder.path / "candidates", 8, 1)
    folder.log("candidates").append(*({"id": f"c{n}"} for n in range(1, 4)))
    folder.log("candidates", rank=1).append({"id": "c4"})
    return folder


def training(path) -> Folder:
    """Step 30 of 40, of which ten were taken by the process before."""
    folder = answering(path)
    folder.log("candidates").append(*({"id": f"c{n}"} for n in range(5, 8)))
    rows = [
        {"id": f"c{n}", "text": '"reason": "a trap"', "reason": why} for n, why in enumerate([None, "no_box"])
    ]
    folder.log("scores").append(*({"id": str(n), "candidates": rows} for n in range(4)))
    folder.log("pairs").append({"id": "p"}, *({"id": str(n), "skip": "none_worse"} for n in range(3)))
    steps = StepLog(folder)
    steps.go_on_after(10, 40)
    begun = json.loads((folder.dpo / "begun.json").read_text())
    write_json(folder.dpo / "begun.json", begun | {"time": 1000.0})
    for step in (0, 10, 20, 30):
        steps.append(
            {
                "step": step,
                "time": 980.0 + 2 * step,
                "loss": 0.5,
                "probe/s_loc": step / 100,
                "kl": float("inf"),
            }
        )
    write_json(folder.dpo / "checkpoint-20" / "complete.json", {"batch": 1})
    write_json(folder.dpo / "checkpoint-25" / "trainer_state.json", {})
    return folder


def failed(path) -> Folder:
    folder = training(path)
    write_json(folder.failed, {"stage": "dpo", "error": "no\x1b[2J room", "rank": 1, "time": "now"})
    return folder


def without_pairs(path) -> Folder:
    """No query gave a pair that may train: one is marked, three have none."""
    folder = answering(path)
    folder.log("candidates").append(*({"id": f"c{n}"} for n in range(5, 8)))
    note_begin(folder.path / "pairs", 4, 0)
    folder.log("pairs").append({"id": "p"}, *({"id": str(n), "skip": "small_gap"} for n in range(3)))
    manifest = json.loads(folder.manifest.read_text())
    manifest["config"]["spr_exclude_pairs"] = {"path": "marks", "pairs": ["p"]}
    write_json(folder.manifest, manifest)
    write_json(folder.failed, {"stage": "pairs", "error": "no pair is left", "rank": 0, "time": "now"})
    return folder


def finished(path) -> Folder:
    folder = training(path)
    write_json(folder.policy / "index.json", {})
    write_json(folder.exit, {})
    return folder


def second_round(path) -> Folder:
    folder = training(path)
    write_json(folder.policy / "index.json", {})
    answering(folder.round(2).path)
    return folder


def sampled(path) -> Folder:
    """A folder of `spr sample`."""
    folder = bound(path, stages=2)
    folder.log("batches").append({"id": "0", "asks": [["q", "plain"]]})
    folder.log("candidates").append({"id": "a"}, {"id": "b"})
    return folder


STATES = {
    bound: ("stopped", "host training", "begin with the host's part"),
    answering: ("stopped", "candidates", "go on with candidates: 3 of 8 answers are left"),
    training: ("stopped", "dpo", "go on with the DPO stage from checkpoint-20 of 40"),
    failed: (
        "failed",
        "dpo",
        "once the last error is mended, read the host's training from spr/entry and go on",
    ),
    without_pairs: ("failed", "pairs", "end again, since no preference pair is left"),
    finished: ("finished", "dpo", "read the improved weights"),
    second_round: ("stopped", "candidates", "go on with candidates: 3 of 8 answers are left"),
    sampled: ("finished", "candidates", "nothing: all answers are there"),
}


@pytest.mark.parametrize("make", STATES)
def test_each_state_says_where_it_is_and_what_comes_next(tmp_path, make):
    make(tmp_path / "out" / "spr")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status_now = read_status(tmp_path / "out")
    state, stage, following = STATES[make]
    assert (status_now["state"], status_now["stage"]) == (state, stage) and following in status_now["next"]
    assert status_now["round"] == len(status_now["rounds"]) == (2 if make is second_round else 1)
    assert json.loads(json.dumps(status_now, allow_nan=False)) == status_now
    lines = lines_of(status_now)
    assert lines[0].startswith(f"{tmp_path}/out/spr: {state}") and all(line.isprintable() for line in lines)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_ranks_rates_and_time_left_are_those_of_the_process_that_went_on(tmp_path):
    folder = answering(tmp_path)
    for rank, age in ((0, 4.0), (1, 1.0)):
        os.utime(folder.log("candidates", rank).path, (1010.0 - age, 1010.0 - age))
    begun = json.loads((folder.path / "candidates" / "begun.json").read_text())
    write_json(folder.path / "candidates" / "begun.json", begun | {"time": 1000.0})
    os.utime(folder.path / "candidates" / "begun.json", (1000.0, 1000.0))
    (stage,) = [one for one in look_at(folder, 1010.0)["stages"] if one["stage"] == "candidates"]
    assert (stage["done"], stage["total"]) == (5, 8)
    assert stage["rate"] == pytest.approx(3 / 6 + 1 / 9)
    assert stage["seconds_left"] == pytest.approx(3 / stage["rate"])
    assert stage["ranks"] == [
        {"rank": 0, "done": 4, "rate": pytest.approx(0.5), "seconds_ago": pytest.approx(4.0)},
        {"rank": 1, "done": 1, "rate": pytest.approx(1 / 9), "seconds_ago": pytest.approx(1.0)},
    ]


def test_a_copy_whose_files_are_all_new_has_no_rate(tmp_path):
    folder = answering(tmp_path / "run")
    for path in (folder.path / "candidates").iterdir():
        os.utime(path, (2000.0, 2000.0))  # as `cp -r` would leave them
    (stage,) = [one for one in look_at(folder, 2010.0)["stages"] if one["stage"] == "candidates"]
    assert (stage["done"], stage["rate"], stage["seconds_left"]) == (5, None, None)
    assert [rank["rate"] for rank in stage["ranks"]] == [None, None]


def look_at(folder, now):
    return status_of(runs.open(folder.path), now)["rounds"][-1]


def test_steps_skips_probe_and_error(tmp_path, monkeypatch):
    found = look_at(failed(tmp_path), 1050.0)
    assert found["skips"] == {
        "queries": {"missing_image": 2}, "scores": {"no_box": 4}, "pairs": {"none_worse": 3}
    }  # fmt: skip
    assert found["probe"] == {"step": 30, "s_loc": 0.3} and found["step"]["kl"] is None
    stage = found["stages"][-1]
    assert (stage["done"], stage["total"], stage["rate"]) == (30, 40, pytest.approx(20 / 40))
    assert stage["seconds_left"] == pytest.approx(20.0) and stage["seconds_ago"] == pytest.approx(10.0)
    said = "\n".join(lines_of(read_status(tmp_path)))
    assert "last error (dpo, rank 1, now): no\\x1b[2J room" in said
    assert "left out of scores: no_box 4" in said and "last probe: step 30, s_loc 0.3" in said
    (line,) = [line for line in said.splitlines() if line.startswith("  dpo ")]
    assert line == "  dpo        30 of 40 steps, 0.5/s"  # nobody takes the rest
    monkeypatch.setattr(runs.SavedRun, "owner", "process 7")
    assert f"{line}, 20 s left" in lines_of(read_status(tmp_path))


def test_other_records_of_a_log_that_many_runs_share_are_not_counted(tmp_path):
    """Lengths and reference are kept under hashes: those of other weights stay beside this run's."""
    folder = training(tmp_path)
    folder.log("reference").append(*({"id": f"old{n}"} for n in range(5)))
    note_begin(folder.path / "reference", 3, 1)
    folder.log("reference").append({"id": "new"})
    (stage,) = [one for one in look_at(folder, time.time())["stages"] if one["stage"] == "reference"]
    assert (stage["done"], stage["total"]) == (2, 3)


def test_how_many_pairs_were_made_and_what_became_of_them(tmp_path):
    folder = bound(tmp_path)
    folder.log("pairs").append(*({"id": f"p{n}", "query": f"q{n}"} for n in range(5)))
    folder.log("pairs").append(*({"id": str(n), "query": str(n), "skip": "none_worse"} for n in range(3)))
    assert look_at(folder, 0.0)["pairs"] == {"made": 5, "train": None, "left_out": {}}
    assert "  pairs made: 5" in lines_of(read_status(tmp_path))
    # Measured, and one of other settings; whether the rest is too long is not known before all are.
    folder.log("lengths").append(*({"id": f"l{n}", "pair": f"p{n}", "fits": True} for n in (0, 1, 2, 9)))
    assert look_at(folder, 0.0)["pairs"]["train"] is None
    folder.log("reference").append({"id": "r0", "pair": "p0"})
    manifest = json.loads(folder.manifest.read_text())
    manifest["config"]["spr_exclude_pairs"] = {"path": "marks", "pairs": ["p2", "of another run"]}
    write_json(folder.manifest, manifest)
    left_out = {"marked": 1, "held out or too long": 2}
    assert look_at(folder, 0.0)["pairs"] == {"made": 5, "train": 2, "left_out": left_out}
    told = lines_of(read_status(tmp_path))
    assert "  pairs made: 5, of which 2 train (left out: marked 1, held out or too long 2)" in told


def test_lines_that_are_no_records_are_told_and_not_counted(tmp_path):
    folder = answering(tmp_path)
    with open(folder.log("candidates").path, "ab") as log:
        log.write(b'garbage\n\n{"id": "c9"}\n')
    with open(folder.log("candidates", 1).path, "ab") as log:
        log.write(b'{"id": "being writ')
    (stage,) = [one for one in look_at(folder, time.time())["stages"] if one["stage"] == "candidates"]
    assert (stage["done"], stage["total"], stage["damaged"]) == (5, 8, 2)
    told = "\n".join(lines_of(read_status(tmp_path)))
    assert "candidates 5 of 8 answers" in told and "(2 damaged lines)" in told


def begun_half(folder):
    (folder.path / "candidates" / "begun.json").write_text('{"time": 1')


def begun_otherwise(folder):
    write_json(folder.path / "candidates" / "begun.json", {"time": "soon", "total": [], "lines": 3})


def torn(folder):
    path = folder.log("candidates").path
    path.write_bytes(path.read_bytes()[:-9])
    path = StepLog(folder).path
    path.write_bytes(path.read_bytes()[:-9])


def no_manifest(folder):
    folder.manifest.unlink()


@pytest.mark.parametrize("break_", [begun_half, begun_otherwise, torn, no_manifest])
def test_what_is_half_written_is_left_out(tmp_path, break_):
    folder = training(tmp_path)
    break_(folder)
    status_now = read_status(tmp_path)
    (stage,) = [one for one in status_now["rounds"][0]["stages"] if one["stage"] == "candidates"]
    assert stage["done"] == (7 if break_ is torn else 8) and status_now["stage"] == "dpo"
    assert status_now["rounds"][0]["step"]["step"] == (20 if break_ is torn else 30)


def empty(folder):
    folder.path.mkdir()


def foreign(folder):
    write_json(folder.manifest, {"name": "a web page"})


def half_a_manifest(folder):
    folder.path.mkdir()
    folder.manifest.write_text('{"layout": 3, "conf')


def older(folder):
    write_json(folder.manifest, {"layout": LAYOUT - 1, "config": {}, "version": "0.0.1"})


def strange(folder):
    sampled(folder.path)
    folder.log("batches").append({"id": "1", "asks": 7})


def a_file(folder):
    folder.path.write_text("no folder")


def unreadable(folder):
    training(folder.path)
    folder.path.chmod(0)


def unreadable_log(folder):
    training(folder.path)
    (folder.path / "candidates").chmod(0)


def unreadable_manifest(folder):
    """Not damaged, and nothing to move away."""
    training(folder.path)
    folder.manifest.chmod(0)


def unreadable_records(folder):
    training(folder.path)
    folder.log("candidates").path.chmod(0)


def unreadable_note(folder):
    training(folder.path)
    (folder.path / "candidates" / "begun.json").chmod(0)


def a_pipe(folder):
    """Which nobody writes to: whoever opened it would wait."""
    folder.path.mkdir()
    os.mkfifo(folder.manifest)


BAD = {
    empty: "no SPR run here",
    foreign: "written by no run of ours",
    half_a_manifest: "written by no run of ours",
    older: f"by spr-plugin 0.0.1 in layout {LAYOUT - 1}",
    strange: "holds what this version cannot read",
    a_file: "no SPR run here",
    a_pipe: "/run/manifest.json cannot be read (not a regular file)",
    unreadable: "/run may not be read (Permission denied)",
    unreadable_log: "/run/candidates may not be read (Permission denied)",
    unreadable_manifest: "/run/manifest.json may not be read (Permission denied)",
    unreadable_records: "/run/candidates/rank-00000.jsonl may not be read (Permission denied)",
    unreadable_note: "/run/candidates/begun.json may not be read (Permission denied)",
}


@pytest.mark.parametrize("make", BAD)
def test_what_cannot_be_shown_is_one_clear_line(tmp_path, make, monkeypatch, capsys, ordinary_user):
    folder = Folder(tmp_path / "run")
    tmp_path.chmod(0o755)
    make(folder)
    monkeypatch.setattr(sys, "argv", ["spr", "status", str(folder.path)])
    with ordinary_user, pytest.raises(SystemExit) as ended:
        main()
    if folder.path.is_dir():
        for path in (folder.path, folder.path / "candidates"):
            if path.exists():
                path.chmod(0o755)
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert ended.value.code == 2 and not out
    assert line.startswith("spr: error: ") and BAD[make] in line and str(folder.path) in line


@pytest.mark.parametrize("make", [answering, finished, sampled])
def test_a_newer_run_is_said_to_be_one_and_what_is_known_of_it_shown(tmp_path, capsys, make):
    folder = make(tmp_path)
    manifest = json.loads(folder.manifest.read_text())
    write_json(folder.manifest, manifest | {"layout": LAYOUT + 1, "version": "9.1"})
    found = read_status(tmp_path)
    assert found["stage"] == ("dpo" if make is finished else "candidates")
    assert found["next"] == f"nothing with this version, of layout {LAYOUT}: spr-plugin 9.1 goes on with it"
    (line,) = capsys.readouterr().err.splitlines()
    assert "newer than this one's" in line


def test_a_query_that_is_not_looked_at_yet_may_still_give_a_pair(tmp_path):
    folder = without_pairs(tmp_path)
    note_begin(folder.path / "pairs", 5, 4)
    assert "go on with pairs: 1 of 5 queries are left" in read_status(tmp_path)["next"]


def test_watching_ends_with_the_run(tmp_path, monkeypatch, lock_held):
    training(tmp_path)
    with lock_held(tmp_path) as other:

        def sleep(seconds):
            other.kill()
            other.wait()

        monkeypatch.setattr(status.time, "sleep", sleep)
        shown = CliRunner().invoke(commands, ["status", str(tmp_path), "--watch", "--json"])
    first, last = (json.loads(line) for line in shown.output.splitlines())
    assert first["state"] == "running" and str(other.pid) in first["owner"] and "refused" in first["next"]
    assert last["state"] == "stopped" and shown.exit_code == 0


def test_ctrl_c_ends_watching_quietly(tmp_path, monkeypatch):
    training(tmp_path)
    monkeypatch.setattr(runs.SavedRun, "owner", "process 7")

    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    shown = CliRunner().invoke(commands, ["status", str(tmp_path), "--watch"])
    assert shown.exit_code == 0 and "running, process 7" in shown.output


def test_it_starts_without_torch(tmp_path):
    training(tmp_path)
    code = f"""
import sys
from spr_plugin.tools.status import show
show({str(tmp_path)!r})
assert not {{"torch", "transformers", "tqdm", "scipy"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ""})


def test_there_is_a_user_error_for_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no SPR run here"):
        read_status(tmp_path / "gone")
