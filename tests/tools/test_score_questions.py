"""``spr data RECIPE``, ``spr score --recipe NAME``: questions in a file, anybody's answers to them."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.judging import judge_queries
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.questions import read_questions

RECIPES = ("spatial_ssrl", "spatial_thinker", "actial")


def spr(*words):
    """A user's mistake is raised, as `spr` itself gets it."""
    return CliRunner().invoke(commands, list(map(str, words)), catch_exceptions=False).output


@pytest.fixture(scope="module")
def questions(tiny_world, posed_world, tmp_path_factory):
    """Recipe → its file of a dozen questions."""
    world, root = tiny_world(spr=24, geometry=True), tmp_path_factory.mktemp("questions")
    posed = posed_world(scenes=3, views=6)
    sources = {
        "spatial_ssrl": (world / "images" / "spr",),
        "spatial_thinker": (world / "images", "--spr_annotations", world / "graphs" / "spr.json"),
        "actial": (posed,),
    }
    for name, (folder, *more) in sources.items():
        spr("data", name, "--from", folder, "--to", root, "--questions", 12, *more)
    return {name: root / name / "val.jsonl" for name in sources}


def recipe_of(name, **flags):
    return find_recipe(SPRConfig(spr=True, spr_recipe=name, **flags), box_format("llava", "pad")).on("cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_questions_come_back_with_their_pictures_and_the_right_answer(questions, name):
    rows = [json.loads(line) for line in questions[name].read_text().splitlines()]
    asked, recipe = [query for query, _ in read_questions(questions[name], recipe_of(name))], recipe_of(name)
    assert len(rows) == 12 and [query.id for query in asked] == [row["id"] for row in rows]
    assert {len(row["pictures"]) for row in rows} == {2 if name == "actial" else 1}
    values = recipe.measure([recipe.worked(query) for query in asked], asked)
    assert values[recipe.BEST] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", RECIPES)
def test_answers_are_judged_and_paired_as_in_a_run(questions, name, tmp_path):
    """Each question has a right answer, a wrong one in the right form, and one without words."""
    recipe, rows = recipe_of(name), []
    asked = {query.id: query for query, _ in read_questions(questions[name], recipe_of(name))}
    for query in asked.values():
        right = recipe.worked(query)
        wrong = right.replace(query.truth["answer"], "none of these")
        said = {"right": right, "wrong": wrong, "nothing": ""}
        rows += [{"id": id, "question": query.id, "text": text} for id, text in said.items()]
    responses, out, pairs = (tmp_path / f"{name}.jsonl" for name in ("responses", "out", "pairs"))
    responses.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ("--questions", questions[name], "--responses", responses, "--out", out, "--pairs", pairs)
    spr("score", "--recipe", name, *files, "--box-format", "llava")
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{key: row[key] for key in ("id", "question", "text")} for row in scored] == rows
    for row in scored:
        (record,) = judge_queries([asked[row["question"]]], [rows_of(rows, row["question"])], recipe)
        same = next(one for one in record["candidates"] if one["id"] == row["id"])
        assert {key: row[key] for key in same.keys() & row.keys()} == same
    found = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert Counter(pair["query"] for pair in found) == Counter(asked.keys())
    assert {(pair["chosen_candidate"], pair["rejected_candidate"]) for pair in found} == {("right", "wrong")}


def rows_of(rows, question):
    return [{"id": row["id"], "text": row["text"]} for row in rows if row["question"] == question]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 1, "text": "a"}, "responses.jsonl:2: a response wants id, question and text; question is"),
        ({"id": 1, "question": "none", "text": "a"}, ":2: the question none is none of --questions"),
        ({"id": "0", "question": None, "text": "a"}, ":2: two responses to .* have the id 0"),
    ],
)
def test_a_line_that_is_no_response_is_named(questions, tmp_path, row, words):
    first = json.loads(questions["spatial_ssrl"].read_text().splitlines()[0])["id"]
    row = {**row, "question": first} if "question" in row and row["question"] is None else row
    lines = [{"id": 0, "question": first, "text": "x"}, row]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    files = ("--questions", questions["spatial_ssrl"], "--responses", tmp_path / "responses.jsonl")
    with pytest.raises(UserError, match=words):
        spr("score", "--recipe", "spatial_ssrl", *files, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--recipe", "actial"), "spr score --recipe actial needs --questions"),
        (("--recipe", "spr", "--images", "x"), "--recipe spr needs --annotations, --box-format"),
        (("--recipe", "actial", "--questions", "q", "--images", "x"), "--images is of another recipe"),
        (
            ("--annotations", "a", "--images", "x", "--box-format", "ferret", "--recipe-config", "r.yaml"),
            "--recipe-config is of another recipe",
        ),
        (("--recipe", "other", "--questions", "q"), "--recipe other: no plugin has it"),
        (("--recipe", "spatial_thinker", "--questions", "q"), "--box-format: name how the model writes"),
    ],
)
def test_inputs_of_another_recipe_are_refused(tmp_path, words, says):
    with pytest.raises(UserError, match=says):
        spr("score", *words, "--responses", "r", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("refcoco", "--questions", 3), "spr data refcoco: --cold_start, --questions"),
        (("actial", "--questions", 3, "--cold_start", 3), "are two commands"),
        (("spatial_thinker", "--cold_start", 3), "--cold_start is of spatial_ssrl and actial"),
        (("spatial_thinker",), "--spr_annotations: name the file of scene graphs"),
    ],
)
def test_data_that_makes_no_sense_is_one_line(tmp_path, words, says):
    with pytest.raises(UserError, match=says):
        spr("data", *words, "--from", tmp_path, "--to", tmp_path / "to")
