"""A run's rows are read as its logs grow, and folders that hold none are one line."""

import json
import shutil

import pytest

from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.runs.layout import LAYOUT
from spr_plugin.tools.inspect import indexed
from spr_plugin.tools.inspect.choosing import Wanted
from spr_plugin.tools.inspect.indexed import IndexedRun


def test_only_what_is_new_is_read_again(made_run, monkeypatch):
    run, read = IndexedRun(made_run.output), []
    for name, (key, fold) in indexed.FOLDED.items():
        noted = lambda row, *rest, fold=fold, name=name: (read.append((name, row.id)), fold(row, *rest))
        monkeypatch.setitem(indexed.FOLDED, name, (key, noted))
    run.refresh()
    assert not read
    query = made_run.queries[0]
    made_run.folder.log("candidates").append({"id": "new", "query": query.id, "kind": "crop", "text": "x"})
    run.refresh()
    assert read == [("candidates", query.id)] and run.query(query.id)[1].answers == 4


def test_the_same_command_begun_again_is_read_anew(made_run):
    """Its manifest is written again, and what it asks may be another recipe's."""
    run = IndexedRun(made_run.output)
    manifest = json.loads(made_run.folder.manifest.read_text())
    manifest["config"]["spr_recipe"] = ["lab"]
    write_json(made_run.folder.manifest, manifest)
    run.refresh()
    assert any("recipe lab" in line for line in run.notices()) and len(list(run.rows())) == 6


def test_a_folder_of_spr_sample_has_answers_and_no_pairs(begun_run):
    begun_run.ask().answer()
    for stage in ("scores", "pairs", "dpo"):
        shutil.rmtree(begun_run.folder.path / stage)
    run = IndexedRun(begun_run.folder.path)
    assert [row.state for row in run.rows()] == ["answered"] * 6
    assert run.chosen(Wanted.of({"text": "nothing here"})) == [run.query(begun_run.queries[-1].id)[1]]


def empty(run):
    shutil.rmtree(run.folder.path)
    run.folder.path.mkdir()


def foreign(run):
    write_json(run.folder.manifest, {"name": "a web page"})


def half_a_manifest(run):
    run.folder.manifest.write_text('{"layout": 3, "conf')


def older(run):
    write_json(run.folder.manifest, {"layout": LAYOUT - 1, "config": {}, "version": "0.0.1"})


def strange(run):
    write_json(run.folder.manifest, {"layout": LAYOUT, "config": {"box": "llava", "spr_recipe": 7}})


def gone(run):
    shutil.rmtree(run.output)


BAD = {
    empty: "no SPR run here",
    gone: "no SPR run here",
    foreign: "written by no run of ours",
    half_a_manifest: "written by no run of ours",
    older: f"in layout {LAYOUT - 1}",
    strange: "holds what this version cannot read",
}


@pytest.mark.parametrize("make", BAD)
def test_what_is_no_run_of_ours_is_one_line(made_run, make):
    make(made_run)
    with pytest.raises(UserError, match=BAD[make]) as refused:
        IndexedRun(made_run.output)
    assert str(made_run.output) in str(refused.value) and "\n" not in str(refused.value)


def test_a_later_round_alone_is_refused_since_marks_would_lie_in_the_run(made_run):
    shutil.copytree(made_run.folder.path, made_run.folder.path.parent / "copy")
    (made_run.folder.path.parent / "copy").rename(made_run.folder.round(2).path)
    with pytest.raises(
        UserError, match=f"is a later round: give the folder of the whole run, {made_run.folder}"
    ):
        IndexedRun(made_run.folder.round(2).path)
    assert IndexedRun(made_run.folder.path).marks_file == made_run.output / "spr-marks.jsonl"
