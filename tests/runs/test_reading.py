"""A run opens in any state, read-only, without torch and without running what it names."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import spr_plugin
from spr_plugin import runs
from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.formats import llava
from spr_plugin.plugins import loaded_files, manager
from spr_plugin.queries import log_queries
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.report.page import write_report
from spr_plugin.runs.layout import LAYOUT, Folder
from spr_plugin.runs.lock import lock
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.runs.steps import StepLog

SPACE = Space.pixels(90, 60)
IMAGE = AnnotatedImage(
    "a", "/nowhere/a.png", 90, 60, (Annotation(1, "cup", Box(5, 5, 30, 40, SPACE), False),)
)
TEXT = llava("pad").render([("cup", IMAGE.annotations[0].box)])


def begun(path, family="llava", **flags) -> Folder:
    """A run that has bound its folder, and done nothing."""
    folder = Folder(path)
    config = SPRConfig(spr=True, **{"spr_prompts": ["plain"], "spr_samples": 2, **flags})
    bind(
        folder,
        settings_of(config, {"family": family, "space": "padded_square", "aspect": "pad"}),
        Changes({}, ()),
    )
    return folder


def sampled(path, **how) -> Folder:
    folder = begun(path, **how)
    query = region_query(IMAGE, Box(0, 0, 50, 50, SPACE), 3)
    log_queries(folder, SPR(SPRConfig(), None), [query], {"missing_image": 2})
    folder.log("batches").append({"id": "0", "asks": [[query.id, "plain"]]})
    folder.log("candidates").append(
        *({"id": f"c{n}", "query": query.id, "kind": "plain", "index": n} for n in range(2))
    )
    return folder


def finished(path, **how) -> Folder:
    folder = sampled(path, **how)
    score = {"terms": {"s_loc": 0.5}, "score": 0.5, "reason": None}
    repaired = {"repaired": TEXT, "repaired_terms": {"s_loc": 0.5}, "repaired_score": 0.5}
    row = {"text": TEXT, **score, **repaired, "not_choosable": None, "not_rejectable": None}
    (region,) = folder.log("queries").read()
    folder.log("scores").append(
        {"id": region, "truth": [], "candidates": [{**row, "id": f"c{n}"} for n in range(2)]}
    )
    texts = {"prompt": "?", "pictures": [IMAGE.path], "chosen": TEXT, "rejected": "a dog"}
    ids = {"id": "p", "query": region, "chosen_candidate": "c0", "rejected_candidate": "c1"}
    folder.log("pairs").append({**ids, **texts, "chosen_score": 0.9, "rejected_score": 0.1})
    write_json(folder.policy / "index.json", {})
    write_json(folder.exit, {})
    return folder


def failed(path) -> Folder:
    folder = sampled(path)
    write_json(folder.failed, {"stage": "dpo", "error": "not finite", "rank": 0, "time": "now"})
    return folder


MADE = {"empty": begun, "stopped": sampled, "finished": finished, "failed": failed}


@pytest.mark.parametrize("state", MADE)
def test_a_run_of_any_state_opens_and_is_left_as_it_is(tmp_path, state):
    MADE[state](tmp_path / "out" / "spr")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    run = runs.open(tmp_path / "out")
    assert run.state == state and run.config["spr_samples"] == 2 and run.box_format == llava("pad")
    assert len(run.queries) == (state != "empty") and len(run.pairs) == (state == "finished")
    assert run.skipped == ({} if state == "empty" else {"missing_image": 2}) and not run.rounds
    assert (run.failure or {}).get("stage") == ("dpo" if state == "failed" else None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    loaded = spr_plugin.load_run(tmp_path / "out" / "spr")
    assert loaded.state == state and len(loaded.pairs) == (state == "finished")
    assert len(loaded.candidates) == (0 if state == "empty" else 2)
    assert f"{len(loaded.pairs)} preference pairs" in loaded._repr_html_()


def test_a_run_that_goes_on_elsewhere_is_running(tmp_path, lock_held):
    sampled(tmp_path)
    with lock_held(tmp_path) as other:
        assert runs.open(tmp_path).state == "running"
        other.kill()
    assert runs.open(tmp_path).state == "stopped"


def test_half_a_record_is_left_out_and_said(tmp_path, capsys):
    folder = sampled(tmp_path)
    path = folder.log("candidates").path
    path.write_bytes(path.read_bytes()[:-9])
    run = runs.open(tmp_path)
    assert list(run.records("candidates")) == ["c0"] and list(run.records("candidates")) == ["c0"]
    assert (
        capsys.readouterr().err == f"spr: {folder.path}/candidates: 1 torn or damaged records are left out\n"
    )
    assert not list(path.parent.glob("*.damaged"))


def test_any_part_may_be_missing(tmp_path):
    """A folder that was copied in part, or is written right now."""
    for part in sorted(path.name for path in finished(tmp_path / "whole").path.iterdir()):
        shutil.copytree(tmp_path / "whole", tmp_path / part)
        gone = tmp_path / part / part
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        run = runs.open(tmp_path / part)
        assert run.state in runs.STATES
        assert len(run.records("scores")) == (part != "scores")


@pytest.mark.parametrize("name", ["failed.json", "queries/counts.json"])
def test_a_small_file_that_is_damaged_is_said_and_the_rest_shown(tmp_path, name, capsys):
    finished(tmp_path)
    (tmp_path / name).write_text("{")
    run = runs.open(tmp_path)
    assert run.state == "finished" and run.skipped in ({}, {"missing_image": 2}) and len(run.pairs) == 1
    assert f"spr: {tmp_path / name} is damaged" in capsys.readouterr().err


def test_a_run_that_was_killed_before_it_wrote_anything_is_empty(tmp_path):
    (tmp_path / "lock").write_text("process 7 on here since then")
    run = runs.open(tmp_path)
    assert run.state == "empty" and not run.queries and not run.pairs and run.config == {}


def test_a_folder_with_folders_of_our_names_is_no_run(tmp_path):
    """A package has a ``dpo/`` too."""
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo" / "trainer.py").touch()
    with pytest.raises(UserError, match="no SPR run here"):
        runs.open(tmp_path)


def test_a_folder_of_spr_sample_is_finished_when_all_is_there(tmp_path):
    asked = settings_of(SPRConfig(spr=True, spr_prompts=["plain"], spr_samples=2), llava("pad").describe())
    folder = Folder(tmp_path)
    bind(folder, {stage: asked[stage] for stage in ("queries", "candidates")}, Changes({}, ()))
    assert runs.open(tmp_path).state == "empty"
    log_queries(folder, SPR(SPRConfig(), None), [region_query(IMAGE, Box(0, 0, 50, 50, SPACE), 3)], {})
    (query,) = folder.log("queries").read()
    # A batch that was split stays in the plan beside its halves.
    folder.log("batches").append(
        {"id": "0", "asks": [[query, "plain"]]}, {"id": "0.0", "asks": [[query, "plain"]]}
    )
    folder.log("candidates").append({"id": "a"})
    assert runs.open(tmp_path).state == "stopped"
    folder.log("candidates").append({"id": "b"})
    assert runs.open(tmp_path).state == "finished"


@pytest.mark.parametrize(
    "manifest, says",
    [
        (None, "no SPR run here"),
        ("[]", "written by no run of ours"),
        ('{"name": "page"}', "written by no run of ours"),
        ('{"layout": "2", "config": {}}', "written by no run of ours"),
        (
            '{"hash": "x", "config": {}, "inputs": {}, "versions": {}}',
            "by spr-plugin of an older version in layout 1",
        ),
        (
            '{"layout": 3, "version": "0.1.0", "config": {}}',
            "by spr-plugin 0.1.0 in layout 3, which this one, of layout 4, cannot read: open it with that",
        ),
    ],
)
def test_what_is_no_run_or_an_older_one_is_one_line(tmp_path, manifest, says):
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=says) as refused:
        runs.open(tmp_path)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


def test_a_newer_run_shows_what_is_known_of_it(tmp_path, capsys):
    folder = sampled(tmp_path)
    newer = {**json.loads(folder.manifest.read_text()), "layout": LAYOUT + 7, "version": "9.1", "rooms": []}
    write_json(folder.manifest, newer)
    (region,) = folder.log("queries").read().values()
    region["pictures"][0]["depth"] = "z.png"
    folder.log("queries").write([{**region, "recipe": "new"}])
    run = runs.open(tmp_path)
    assert len(run.queries) == 1 and len(run.records("candidates")) == 2
    assert (
        f"{tmp_path} was written by spr-plugin 9.1 in layout {LAYOUT + 7}, newer" in capsys.readouterr().err
    )
    del region["region"]
    folder.log("queries").write([region])
    with pytest.raises(UserError, match="queries holds no queries that this version reads"):
        _ = runs.open(tmp_path).queries


def test_later_rounds_are_runs_in_their_order(tmp_path):
    folder = finished(tmp_path)
    for number in (10, 2):
        sampled(folder.round(number).path)
    (tmp_path / "round-table").mkdir()
    assert [run.folder.path.name for run in runs.open(tmp_path).rounds] == ["round-2", "round-10"]


def test_a_later_round_is_finished_by_its_model_and_else_what_the_run_is(tmp_path, lock_held):
    """Lock, failure and end are the whole run's."""
    folder = finished(tmp_path)
    folder.exit.unlink()
    done, going = finished(folder.round(2).path), sampled(folder.round(3).path)
    done.exit.unlink()

    def states():
        return [runs.open(one.path).state for one in (folder, done, going)]

    assert states() == ["stopped", "finished", "stopped"]
    with lock_held(tmp_path) as other:
        assert states() == ["running", "finished", "running"]
        other.kill()
    write_json(folder.failed, {"stage": "dpo", "error": "not finite", "rank": 0, "time": "now"})
    assert states() == ["failed", "finished", "failed"]


LOOK = """
import sys
from spr_plugin.errors import UserError
from spr_plugin.report.page import write_report
from spr_plugin.tools.inspect.indexed import IndexedRun
from spr_plugin.tools.status import read_status
for look in (write_report, read_status, IndexedRun):
    try:
        look(sys.argv[1])
    except UserError as it:
        print(it)
"""


@pytest.mark.parametrize(
    "part", [*(f"{name}/rank-00000.jsonl" for name in ("queries", "scores", "pairs")), "dpo/log.jsonl"]
)
def test_a_pipe_in_place_of_a_log_is_named_and_not_waited_for(tmp_path, part):
    """In another process, which it could hold for ever."""
    path = finished(tmp_path / "spr").path / part
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    words = [sys.executable, "-c", LOOK, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == (2 if part.startswith("dpo") else 3)  # inspect shows no steps
    for line in lines:
        assert line.startswith(f"{path} cannot be read (not a regular file): mend it")


PLUGIN = """
from spr_plugin.formats import llava
from spr_plugin.hookspecs import hookimpl
open({mark!r}, "a").close()

@hookimpl
def spr_box_format(family, aspect):
    return llava(aspect) if family == "lab" else None
"""


def test_no_file_that_a_folder_names_is_run_and_texts_show_without_boxes(tmp_path, capsys):
    file, mark = tmp_path / "lab.py", tmp_path / "mark"
    file.write_text(
        "from spr_plugin.hookspecs import hookimpl\n@hookimpl\ndef spr_host(trainer): return None\n"
    )
    folder = finished(tmp_path / "run", family="lab")
    config = json.loads(folder.manifest.read_text())
    config["config"]["spr_plugin"] = [str(file)]
    write_json(folder.manifest, config)
    file.write_text(PLUGIN.format(mark=str(mark)))
    report = write_report(folder.path).read_text()
    assert "a dog" in report and not mark.exists() and str(file.resolve()) not in loaded_files()
    lines = [line for line in capsys.readouterr().err.splitlines() if "box format lab" in line]
    assert (
        len(lines) == 1 and "its texts show without boxes: name its file with --spr_plugin FILE" in lines[0]
    )
    try:
        assert runs.open(folder.path, plugins=[str(file)]).box_format == llava("pad")
        assert mark.exists()
    finally:
        manager().unregister(name=str(file.resolve()))


@pytest.mark.parametrize("part", ["", "manifest.json", "pairs", "pairs/rank-00000.jsonl", "dpo/log.jsonl"])
def test_what_may_not_be_read_is_named_and_called_nothing_else(tmp_path, ordinary_user, part):
    """Least of all damaged, or somebody else's."""
    folder = finished(tmp_path / "spr")
    StepLog(folder).append({"step": 1})
    tmp_path.chmod(0o755)
    mode = (folder.path / part).stat().st_mode
    (folder.path / part).chmod(0)
    with ordinary_user, pytest.raises(UserError) as refused:
        run = runs.open(tmp_path)
        list(run.records("pairs")), run.steps
    (folder.path / part).chmod(mode)
    assert str(refused.value).startswith(
        f"{folder.path / part} may not be read (Permission denied): run this as"
    )


@pytest.mark.slow
def test_opening_needs_no_torch_and_no_right_to_write(tmp_path, ordinary_user):
    finished(tmp_path / "run")
    for path in sorted((tmp_path / "run").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "run").chmod(0o555)
    tmp_path.chmod(0o755)
    with ordinary_user:
        assert runs.open(tmp_path / "run").state == "finished"
    code = f"""
import sys, spr_plugin
run = spr_plugin.load_run({str(tmp_path / "run")!r})
assert run.state == "finished" and run.saved.box_format and len(run.pairs) == 1 and run.saved.queries
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ""})


def test_a_lock_of_this_process_is_a_run(tmp_path):
    sampled(tmp_path)
    lock(tmp_path)
    assert runs.open(tmp_path).state == "running"
