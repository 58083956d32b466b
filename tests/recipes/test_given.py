"""Pairs of one's own are read line by line, and what is none is one line that names it."""

import json
import random

import pytest
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import llava
from spr_plugin.pairing import PreferencePair, best_over_worst, by_chance, make_pair
from spr_plugin.recipes.base import Query, Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.given import GivenPairs, read_pair

ROW = {"images": ["a.png"], "prompt": "Where?", "chosen": "a cup [0.1, 0.1, 0.5, 0.5]", "rejected": "a dog"}


@pytest.fixture
def recipe(tmp_path):
    """``recipe(row, …)`` → what reads these rows, beside two pictures."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 20)).save(tmp_path / name)

    def made(*rows):
        file = tmp_path / "pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return find_recipe(SPRConfig(spr=True, spr_pairs=str(file)), llava("pad"))

    return made


def queries_of(recipe, folder, skipped=None):
    source = Source(None, str(folder))
    queries = recipe.queries(source)
    assert dict(source.skipped) == (skipped or {})
    return queries


def conversation(row):
    """As TRL has it, and `spr export` writes it."""
    turns = {name: [{"role": "assistant", "content": row[name]}] for name in ("prompt", "chosen", "rejected")}
    return {"images_file_names": row["images"], **turns, "score_chosen": 0.7, "id": "p"}


@pytest.mark.parametrize("layout", [dict, conversation])
def test_a_row_becomes_a_pair_whatever_way_its_texts_are_written(recipe, tmp_path, layout):
    given = recipe(layout(ROW), layout({**ROW, "images": ["a.png", "b.png"], "chosen": "two cups"}))
    assert isinstance(given, GivenPairs)
    one, two = queries_of(given, tmp_path)
    assert (one.text, one.sources, len(two.pictures)) == ("Where?", (str(tmp_path / "a.png"),), 2)
    assert given.read(json.loads(json.dumps(one.to_record()))) == one
    assert given.answers(one) == [ROW["chosen"], ROW["rejected"]] and given.worked(one) == ROW["chosen"]
    (judged,) = given.judge([], [one], [given.answers(one)])
    for pairing in (best_over_worst, by_chance):
        rows = [{"id": str(n), **vars(answer)} for n, answer in enumerate(judged.answers)]
        pair = make_pair(one, given.question(one), random.Random(0).sample(rows, 2), pairing)
        assert isinstance(pair, PreferencePair)
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Where?", ROW["chosen"], ROW["rejected"])
    ((marks, _), (none, _)) = given.draw(one, judged)
    assert marks[0].xyxy == pytest.approx((4, -6, 20, 10)) and none == []  # of the square around it
    spoken = [ROW["chosen"][slice(*span)] for span in marks[0].spans]
    assert marks[0].name == "cup" and spoken == ["cup", "[0.1, 0.1, 0.5, 0.5]"]
    assert given.draw(two, judged) == [([], []), ([], [])]


def test_an_answer_is_measured_by_the_chosen_one(recipe, tmp_path):
    given = recipe({**ROW, "chosen": "a cup and a plate"})
    (query,) = queries_of(given, tmp_path)
    for text, like in (("a cup and a plate", 1.0), ("a cup", 4 / 7), ("Nothing.", 0.0), ("", 0.0)):
        assert given.measure([text], [query]) == {"like_chosen": pytest.approx(like)}


def test_pictures_that_are_gone_and_pairs_that_stand_twice_are_counted(recipe, tmp_path):
    (tmp_path / "c.png").write_bytes(b"no picture")
    rows = [ROW, ROW, {**ROW, "images": ["gone.png"]}, {**ROW, "images": ["a.png", "c.png"]}]
    skipped = {"duplicate": 1, "missing_image": 1, "unreadable_image": 1}
    assert len(queries_of(recipe(*rows), tmp_path, skipped)) == 1
    with pytest.raises(UserError, match="pairs.jsonl: holds no pair that can be used .missing_image 1"):
        queries_of(recipe(rows[2]), tmp_path)
    with pytest.raises(UserError, match="pairs.jsonl: holds no pair that can be used .it is empty"):
        queries_of(recipe(), tmp_path)


@pytest.mark.parametrize(
    "row, words",
    [
        ([], "is no table"),
        ({}, "images is no list"),
        ({**ROW, "images": "a.png"}, "images is no list"),
        ({**ROW, "images": []}, "images is no list of one to 5 names"),
        ({**ROW, "images": ["a.png"] * 6}, "images is no list of one to 5"),
        ({**ROW, "images": [{"bytes": "x"}]}, "images is no list"),
        ({**ROW, "images": [""]}, "images is no list"),
        ({**ROW, "prompt": None}, "prompt is no text"),
        ({**ROW, "chosen": "  "}, "chosen is no text"),
        (
            {**ROW, "rejected": [{"content": "a"}, {"content": "b"}]},
            "rejected is no text, nor the one message",
        ),
        ({**ROW, "rejected": [{"content": [{"type": "text", "text": "a"}]}]}, "rejected is no text"),
        ({**ROW, "rejected": f" {ROW['chosen']}\n"}, "chosen and rejected are the same"),
    ],
)
def test_what_is_no_pair_is_one_line(row, words):
    with pytest.raises(UserError, match=f"^line 7: {words}") as refused:
        read_pair(row, "line 7")
    assert "\n" not in str(refused.value)


def test_the_file_and_line_are_named(recipe, tmp_path):
    with pytest.raises(UserError, match=r"--spr_pairs .*pairs.jsonl, line 2: prompt is no text"):
        queries_of(recipe(ROW, {**ROW, "prompt": 3}), tmp_path)
    with pytest.raises(UserError, match="--spr_pairs /nowhere: No such file"):
        find_recipe(SPRConfig(spr=True, spr_pairs="/nowhere"), None).queries(Source())


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"spr_rounds": 2}, "--spr_rounds"),
        ({"spr_candidates": "x"}, "--spr_candidates"),
        ({"spr_sampler": "openai", "spr_sampler_url": "http://localhost:1/v1"}, "--spr_sampler openai"),
    ],
)
def test_what_samples_does_not_go_with_given_pairs(flags, words):
    with pytest.raises(UserError, match=f"--spr_pairs with {words}: given pairs need no sampling"):
        SPRConfig(spr=True, spr_pairs="x", **flags)


def test_a_query_without_a_box_format_is_read_and_drawn(recipe, tmp_path):
    given = recipe(ROW)
    (query,) = queries_of(given, tmp_path)
    alone = GivenPairs(given.file, None)
    assert isinstance(alone.read(query.to_record()), Query)
    (judged,) = alone.judge([], [query], [alone.answers(query)])
    assert alone.draw(query, judged) == [([], []), ([], [])]
