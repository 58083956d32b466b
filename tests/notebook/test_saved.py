"""A run as tables and pictures, and the notebook of examples/, cell by cell."""

import ast
import json
import shutil
import sys
from html import escape
from pathlib import Path

import pytest

import spr_plugin
from spr_plugin import UserError

pandas = pytest.importorskip("pandas")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "look_at_a_run.ipynb"


@pytest.fixture(scope="module")
def output(finished_output, tmp_path_factory):
    return finished_output(tmp_path_factory.mktemp("saved") / "out", 8)


def test_the_tables_hold_what_the_logs_hold(output):
    run = spr_plugin.load_run(output)
    assert list(run.pairs.index) == [pair.id for pair in run.saved.pairs] and run.pairs.index.name == "id"
    for pair in run.saved.pairs:
        row = run.pairs.loc[pair.id]
        assert (row.chosen, row.rejected, row.pictures) == (pair.chosen, pair.rejected, list(pair.pictures))
        assert row.gap == pytest.approx(pair.chosen_score - pair.rejected_score)
    judged = [row for record in run.saved.records("scores").values() for row in record["candidates"]]
    assert len(run.candidates) == len(judged) == len(run.saved.records("candidates"))
    for row in judged:
        told = run.candidates.loc[row["id"]]
        assert told.text == row["text"] and told.kind == "plain" and told["query"] in run.saved.queries
        assert pandas.isna(told.score) if row["score"] is None else told.score == row["score"]
        assert pandas.isna(told.s_loc) if row["score"] is None else told.s_loc == row["terms"]["s_loc"]
    chosen = run.candidates.loc[run.pairs.chosen_candidate]
    assert (chosen.repaired_score.to_numpy() == run.pairs.chosen_score.to_numpy()).all()


def test_later_rounds_are_told_of_and_runs_of_their_own(output, tmp_path):
    for folder in ("out", "out/spr/round-2"):
        shutil.copytree(output / "spr", tmp_path / folder / ("spr" if folder == "out" else ""))
    run = spr_plugin.load_run(tmp_path / "out")
    told = f"<run {tmp_path}/out/spr, finished, the first of 2 rounds; the others are in .rounds>"
    assert repr(run) == told and escape(told) in run._repr_html_()
    (later,) = run.rounds
    assert repr(later) == f"<run {tmp_path}/out/spr/round-2, finished>" and len(later.pairs) == 6


def test_answers_that_nobody_judged_yet_are_there(output, tmp_path):
    shutil.copytree(output, tmp_path / "out")
    for stage in ("scores", "pairs"):
        shutil.rmtree(tmp_path / "out" / "spr" / stage)
    run = spr_plugin.load_run(tmp_path / "out")
    assert len(run.candidates) == 6 * 4 + 2 * 2 and run.candidates.score.isna().all() and run.pairs.empty
    assert "0 preference pairs" in run._repr_html_() and "chosen" in run.pairs.columns


def test_a_pair_is_shown_by_its_id(output):
    run = spr_plugin.load_run(output)
    id = run.pairs.index[2]
    html = run.show(id)._repr_html_()
    assert (
        html.count("data:image/jpeg") == 1 and f"<code>{id}</code>" in html and "preference pairs" not in html
    )
    assert run._repr_html_().count("data:image/jpeg") == 3 and "finished" in repr(run)
    with pytest.raises(UserError, match="has no pair nobody"):
        run.show("nobody")


@pytest.mark.parametrize(
    "path, more, line",
    [
        (None, {}, "DIRECTORY, the folder of a run: None is no path"),
        ("", {}, "DIRECTORY, the folder of a run: is empty"),
        (".", {"plugins": "lab.py"}, "plugins: give a list of files, not 'lab.py'"),
        (".", {"plugins": None}, "plugins: give a list of files"),
        (".", {"images": ["a"]}, r"--images \['a'\]: no such folder"),
    ],
)
def test_what_names_no_run_is_one_line(path, more, line):
    with pytest.raises(UserError, match=f"^{line}"):
        spr_plugin.load_run(path, **more)


@pytest.mark.parametrize("id", ["no such", ["a list"], None])
def test_what_is_no_pair_is_one_line(output, id):
    with pytest.raises(UserError, match="has no pair"):
        spr_plugin.load_run(output).show(id)


def test_without_pandas_is_one_line(output, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="tables need pandas: pip install pandas"):
        _ = spr_plugin.load_run(output).pairs


def shown(cell: str, names: dict):
    """What a notebook would show below a cell: the value of its last line, if that is an expression."""
    body = ast.parse(cell).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_the_notebook_runs_from_its_first_cell_to_its_last(output, monkeypatch):
    monkeypatch.setenv("OUTPUT_DIR", str(output))
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(cell.get("outputs", []) == [] for cell in cells), "outputs are not committed"
    names: dict = {}
    values = [shown(cell, names) for cell in code]
    assert len(code) > 4 and all(hasattr(value, "_repr_html_") or value is None for value in values)
    assert sum("data:image/jpeg" in value._repr_html_() for value in values if value is not None) >= 3
