"""Questions in a file with their pictures beside it: written, read again, and lines that are none."""

import json

import pytest
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import Picture
from spr_plugin.errors import UserError
from spr_plugin.recipes.base import Query
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.questions import read_questions, write_questions

ROW = {"id": "a", "question": "Left or right?", "answer": "left", "pictures": ["a.png"]}


def recipe_of(name):
    return find_recipe(SPRConfig(spr=True, spr_recipe=name), None)


@pytest.fixture
def written(tmp_path):
    """``written(row…)`` → a file of them, beside a.png."""
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")

    def write(*rows):
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "q.jsonl"

    return write


def test_what_is_written_is_read_again(tmp_path):
    for name, colour in (("a.jpg", "red"), ("b.png", "blue")):
        Image.new("RGB", (30, 20), colour).save(tmp_path / name)
    one, other = (Picture(name, str(tmp_path / name), 30, 20) for name in ("a.jpg", "b.png"))
    truth = {"answer": "left", "motion": "turn"}
    queries = [
        Query("q", (one, other), "Which?", truth, "turn", 7),
        Query("r", (one,), "Where?", truth, "move", 8),
    ]
    file = tmp_path / "out" / "val.jsonl"
    assert write_questions(queries, file) == 2
    images = sorted(path.name for path in (file.parent / "images").iterdir())
    assert images == ["q-1.png", "q-2.png", "r.png"]
    assert Image.open(file.parent / "images/q-2.png").getpixel((0, 0)) == (0, 0, 255)
    read = list(read_questions(file, recipe_of("actial"), "--questions"))
    assert [where for _, where in read] == [f"--questions {file}, line {number}" for number in (1, 2)]
    for (again, _), query in zip(read, queries):
        same = ("id", "text", "truth", "task")
        assert all(getattr(again, name) == getattr(query, name) for name in same)
        assert {picture.id for picture in again.pictures} == {"a.jpg"}, "the one that was asked about"
        assert all((picture.width, picture.height) == (30, 20) for picture in again.pictures)


def test_a_question_by_hand_needs_no_truth(written):
    ((query, _),) = read_questions(written(ROW), recipe_of("actial"))
    assert recipe_of("actial").measure(["<think>So.</think><answer>left</answer>"], [query])["reward"] == 1
    assert query.task == "question" and query.pictures[0].id == "a.png"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 3}, "id is no text"),
        ({"answer": " "}, "answer is no text"),
        ({"pictures": []}, "pictures are a list of one to 5 names"),
        ({"pictures": ["../a.png"]}, "picture ../a.png is no name in the file's folder"),
        ({"pictures": ["none.png"]}, "picture none.png cannot be used: No such file"),
        ({"truth": {"answer": "other"}}, "truth is a table with the same answer"),
        ({"kind": None}, "kind is no text"),
    ],
)
def test_a_line_that_is_no_question_is_named(written, change, words):
    with pytest.raises(UserError, match=f"q.jsonl, line 2: {words}"):
        list(read_questions(written(ROW, {**ROW, **change}), recipe_of("actial")))


def test_a_line_that_is_no_record_is_named(written):
    with pytest.raises(UserError, match="q.jsonl, line 1: not a record but list"):
        list(read_questions(written([ROW]), recipe_of("actial")))


def test_a_truth_that_the_recipe_cannot_judge_by_is_named(written):
    """A graph is missing."""
    with pytest.raises(UserError, match="line 1: truth is not what spatial_thinker judges by"):
        list(read_questions(written(ROW), recipe_of("spatial_thinker")))
