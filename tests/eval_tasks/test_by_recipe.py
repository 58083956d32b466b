"""The recipes' tasks: documents, figures that are those of `measure`, and the real lmms-eval."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("lmms_eval")
datasets = pytest.importorskip("datasets")

from click.testing import CliRunner  # noqa: E402

from spr_plugin.cli import commands  # noqa: E402
from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks import by_recipe, data, metrics  # noqa: E402
from spr_plugin.eval_tasks.by_recipe import recipe_of  # noqa: E402
from spr_plugin.eval_tasks.catalogue import CATALOGUE, PROTOCOLS  # noqa: E402
from spr_plugin.recipes.questions import read_questions  # noqa: E402
from spr_plugin.report.comparison import compare  # noqa: E402

TASKS = {
    "spr_spatial_ssrl": "spatial_ssrl",
    "spr_spatial_thinker": "spatial_thinker",
    "spr_viewpoint": "actial",
}
FORM = "llava:pad"


@pytest.fixture(scope="module")
def root(tiny_world, posed_world, tmp_path_factory):
    """A SPR_DATA_ROOT of a dozen questions of each recipe, as `spr data` writes it."""
    world, folder = tiny_world(spr=24, geometry=True), tmp_path_factory.mktemp("questions") / "data"
    graphs = ["--spr_annotations", world / "graphs" / "spr.json"]
    sources = {
        "spatial_ssrl": [world / "images" / "spr"],
        "spatial_thinker": [world / "images", *graphs],
        "actial": [posed_world(scenes=3, views=6)],
    }
    for name, (pictures, *more) in sources.items():
        words = ["data", name, "--from", pictures, "--to", folder, "--questions", 12, *more]
        CliRunner().invoke(commands, list(map(str, words)), catch_exceptions=False)
    return folder


def documents(root, task):
    """As lmms-eval's tasks get them."""
    split = CATALOGUE[task]
    columns = {"recipe": TASKS[task], "protocol": split.protocol, "box_format": FORM}
    return [{**doc, **columns} for doc in data.read_folder(str(root), split)]


def answers(task, queries):
    """Right, right without a thought, wrong, and nothing, in turn."""
    recipe, said = recipe_of(TASKS[task], FORM), []
    for place, query in enumerate(queries):
        right = recipe.worked(query)
        wrong = right.replace(query.truth["answer"], "none of these")
        said.append([right, query.truth["answer"], wrong, ""][place % 4])
    return said


@pytest.mark.parametrize("task", TASKS)
def test_figures_are_those_of_the_recipe_s_measure(root, task):
    docs = documents(root, task)
    queries = [
        query for query, _ in read_questions(root / TASKS[task] / "val.jsonl", recipe_of(TASKS[task], FORM))
    ]
    recipe, said = recipe_of(TASKS[task], FORM), answers(task, queries)
    assert [by_recipe.doc_to_text(doc) for doc in docs] == [recipe.question(query) for query in queries]
    assert [by_recipe.doc_to_target(doc) for doc in docs] == [recipe.worked(query) for query in queries]
    found = [by_recipe.process_results(doc, [text]) for doc, text in zip(docs, said)]
    means = {
        name: metrics.mean(one[name] for one in found) for name in PROTOCOLS[CATALOGUE[task].protocol].metrics
    }
    assert means == pytest.approx(recipe.measure(said, queries)) and 0 < means["format"] < 1
    rows = {row["figure"]: row for row in metrics.ratio_details([one["details"] for one in found])}
    assert {name: rows[name]["value"] for name in means} == pytest.approx(means)
    for kind in {query.task for query in queries}:
        own = [(text, query) for text, query in zip(said, queries) if query.task == kind]
        row = rows[f"{recipe.BEST} {kind}"]
        assert row["n"] == len(own) and row["value"] == pytest.approx(recipe.measure(*zip(*own))[recipe.BEST])
    assert rows["reward"]["low"] <= rows["reward"]["value"] <= rows["reward"]["high"]


@pytest.mark.parametrize("task", TASKS)
def test_all_pictures_are_shown(root, task):
    for doc in documents(root, task):
        shown = by_recipe.doc_to_visual(doc)
        assert len(shown) == (2 if task == "spr_viewpoint" else 1)
        assert [(one["width"], one["height"]) for one in doc["shown"]] == [picture.size for picture in shown]


@pytest.mark.parametrize("answer", [[], [None], [""], ["\\boxed{"], ["<scene>{</scene>" * 9], ["[" * 9999]])
def test_no_answer_is_too_odd(root, answer):
    for task in TASKS:
        made = by_recipe.process_results(documents(root, task)[0], answer)
        assert made["reward"]["score"] == 0


def test_what_is_missing_is_one_line(root, tmp_path):
    with pytest.raises(UserError, match="must hold actial/val.jsonl"):
        data.read_folder(str(tmp_path), CATALOGUE["spr_viewpoint"])
    (tmp_path / "actial").mkdir()
    text = (root / "actial" / "val.jsonl").read_text()
    (tmp_path / "actial" / "val.jsonl").write_text(text)
    with pytest.raises(UserError, match="line 1: picture images/.* cannot be used: No such file"):
        data.read_folder(str(tmp_path), CATALOGUE["spr_viewpoint"])


@pytest.mark.slow
def test_the_real_lmms_eval_gives_the_same_figures(root, tmp_path):
    """By its command, which cuts thoughts out of answers unless a task says that it scores them."""
    rows, expected = [], {}
    for task, name in TASKS.items():
        queries = [query for query, _ in read_questions(root / name / "val.jsonl", recipe_of(name, FORM))]
        said = answers(task, queries)
        expected[task] = recipe_of(name, FORM).measure(said, queries)
        rows += [{"id": one.id, "task": task, "text": text} for one, text in zip(queries, said)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"SPR_DATA_ROOT": str(root), "LMMS_EVAL_DATASETS_CACHE": str(tmp_path / "cache")}
    words = ["--model", "spr_oracle", "--model_args", "predictions=said.jsonl,box_format=llava:pad"]
    done = subprocess.run(
        [sys.executable, "-Im", "lmms_eval", *words, "--tasks", ",".join(TASKS), "--output_path", "found"],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (file,) = (tmp_path / "found").rglob("*_results.json")
    found = json.loads(file.read_text())["results"]
    for task, values in expected.items():
        assert {name: found[task][f"{name},none"] for name in values} == pytest.approx(values)


# --- the group over lmms-eval's own tasks


def write_task(folder, name):
    (folder / f"{name}.yaml").write_text(f"task: {name}\ndataset_path: json\noutput_type: generate_until\n")


def test_a_group_holds_what_this_lmms_eval_has_and_names_the_rest(tmp_path, capsys):
    import lmms_eval.models  # noqa: F401  # which makes our tasks known
    from lmms_eval.tasks import TaskManager

    from spr_plugin.eval_tasks.refusal import Refusal

    for name in ("cv_bench", "mmsi_bench"):
        write_task(tmp_path, name)
    some = TaskManager(include_path=str(tmp_path), include_defaults=False)
    assert some.task_index["spr_spatial"]["task"] == ["cv_bench", "mmsi_bench"]
    assert some.match_tasks(["spr_spatial"]) == ["spr_spatial"]
    said = capsys.readouterr().err
    assert "spr_spatial: this lmms-eval has no 3dsrbench, spatial457" in said and said.count("\n") == 1
    with pytest.raises(Refusal, match="2"):
        some.match_tasks(["spr_spatial_video"])
    assert "spr_spatial_video: this lmms-eval has none of vsibench" in capsys.readouterr().err


@pytest.mark.slow
def test_the_installed_lmms_eval_has_all_of_it(capsys):
    import lmms_eval.models  # noqa: F401
    from lmms_eval.tasks import TaskManager

    every = TaskManager()
    assert every.match_tasks(["spr_spatial"]) == ["spr_spatial"] and not capsys.readouterr().err
    assert every.task_index["spr_spatial"]["task"] == -1


@pytest.mark.parametrize("task", TASKS)
def test_two_models_are_compared(root, task, tmp_path):
    """As lmms-eval logs them: right answers in a form against the same ones and worse."""
    docs = documents(root, task)
    recipe = recipe_of(TASKS[task], FORM)
    right = [recipe.worked(by_recipe.query_of(doc)) for doc in docs]
    for name, said in (("a", answers(task, list(map(by_recipe.query_of, docs)))), ("b", right)):
        (tmp_path / name).mkdir()
        rows = [
            {**by_recipe.process_results(doc, [text]), "filtered_resps": [text], "input": doc["question"]}
            for doc, text in zip(docs, said)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name / f"2026_samples_{task}.jsonl").write_text(lines)
    rows = compare(str(tmp_path / "a"), str(tmp_path / "b"))["tasks"][task]["rows"]
    gains = {row["figure"]: row for row in rows}
    assert gains["reward"]["gain"] > 0.3 and gains["format"]["gain"] == pytest.approx(0.5)
