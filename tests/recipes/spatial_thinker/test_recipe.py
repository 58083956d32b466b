"""The recipe as a run asks it: queries from each kind of file, judged answers, what is measured and drawn."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.contracts.recipe import CheckedRecipe
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.pairing import best_over_worst
from spr_plugin.recipes.base import Judged, Source, unjudged
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spatial_thinker.answers import read

CLIP = Path(__file__).parents[3] / "examples" / "tiny_world" / "clip"


def one_of(recipe, source, task):
    return next(query for query in recipe.queries(source) if query.task == task)


def texts_of(recipe, query):
    """Texts of an answer that is right, one whose boxes are off, wrong, without its format, empty."""
    right = recipe.worked(query)
    moved = right.replace("[0, 25, 20, 45]", "[1, 24, 22, 44]")
    wrong = right.replace(query.truth["answer"], "(Z) nothing")
    return right, moved, wrong, "It is left.", " "


def test_a_recipe_keeps_the_contract(made):
    """As a plugin's is held to it: records that read back, plain truths, reasons where there is no score."""
    recipe, source = made({"per_picture": 20})
    checked = CheckedRecipe("ours", "spr_recipe", recipe, {"config": recipe.config})
    queries = checked.on("cpu").queries(source)
    assert {query.task for query in queries} >= {"relation", "size", "location", "distance", "count"}
    for query in queries:
        (prompt,) = checked.prompts(query)
        assert prompt.text == checked.question(query) and "Image size: 100 x 100\n" in prompt.text
        (judged,) = checked.judge([None], [query], [texts_of(recipe, query)])
        assert len(checked.draw(query, judged)) == 5
        assert (
            checked.measure([checked.worked(query), checked.worked(query, True)], [query] * 2)["answer"] == 1
        )


def test_ids_count_from_one_and_the_graph_is_of_what_is_asked_about(made):
    query = one_of(*made({"tasks": ["relation"]}), "relation")
    assert [row["id"] for row in query.truth["graph"]["objects"]] == ["red circle.1", "blue square.2"]
    assert query.truth["graph"]["relationships"] == [
        {"subject": "red circle.1", "predicate": "left of", "object": "blue square.2"}
    ]
    lettered = re.findall(r"\([A-D]\) .*", query.text)
    assert len(lettered) == 4 and query.truth["answer"] in lettered


def test_answers_are_judged_and_their_boxes_repaired(made):
    recipe, source = made({"tasks": ["relation"]})
    query = one_of(recipe, source, "relation")
    (judged,) = recipe.judge([None], [query], [texts_of(recipe, query)])
    right, moved, wrong, loose, empty = judged.answers
    assert right.repaired == right.text and right.score > 0.99 and right.not_choosable is None
    assert 0.9 < moved.score < right.score and moved.repaired == right.text
    assert moved.repaired_score == right.score
    assert wrong.score == pytest.approx(0.3) and wrong.not_choosable == "wrong_answer"
    assert (loose.score, loose.reason, loose.not_choosable) == (0, None, "unparsable")
    assert (empty.score, empty.reason, empty.not_rejectable) == (None, "empty", "empty")
    assert set(right.terms) == {"format", "count", "answer", "scene"} and loose.terms["format"] == 0
    # The best repaired over the worst as written.
    assert best_over_worst(query, dict(zip("abcde", judged.answers))) == ("a", "d")


def test_boxes_that_go_keep_an_answer_from_being_chosen(made):
    recipe, source = made({"tasks": ["relation"]})
    query = one_of(recipe, source, "relation")
    right = recipe.worked(query)
    one_off = right.replace("[0, 25, 20, 45]", "[70, 80, 90, 99]")
    both_off = one_off.replace("[60, 55, 100, 75]", "[0, 0, 5, 5]")
    (judged,) = recipe.judge([None], [query], [[one_off, both_off]])
    assert [one.not_choosable for one in judged.answers] == ["too_few_boxes_kept", "no_box_survived"]
    assert read(judged.answers[0].repaired).graph.ids == ("blue square.2",)
    (lenient,) = made(spr_min_kept=0.5)[0].judge([None], [query], [[one_off]])
    assert lenient.answers[0].not_choosable is None
    (as_it_is,) = made(spr_repair="none")[0].judge([None], [query], [[one_off]])
    assert as_it_is.answers[0].repaired == one_off and as_it_is.answers[0].not_choosable is None


def test_wrong_answers_may_be_chosen_where_that_is_asked_for(made):
    recipe, source = made({"tasks": ["relation"], "right_only": False})
    query = one_of(recipe, source, "relation")
    wrong = texts_of(recipe, query)[2]
    (judged,) = recipe.judge([None], [query], [[wrong, "no"]])
    assert judged.answers[0].not_choosable is None
    assert best_over_worst(query, dict(zip("ab", judged.answers))) == ("a", "b")


@pytest.mark.slow
def test_names_may_be_likened_by_a_model(made):
    """The tiny world's CLIP takes "a red circle" for the red circle, and so its box for repaired."""
    flags = {"spr_clip": str(CLIP), "spr_match_threshold": 0.5}
    recipe, source = made({"tasks": ["relation"], "names": "clip"}, **flags)
    query = one_of(recipe, source, "relation")
    text = recipe.worked(query).replace("red circle.1", "a red circle.1")
    text = text.replace("blue square.2", "a blue square.2").replace("[0, 25, 20, 45]", "[1, 24, 22, 44]")
    liked, strange = (
        one.judge([None], [query], [[text]])[0].answers[0] for one in (recipe.on("cpu"), recipe)
    )
    assert liked.not_choosable is None and "[0, 25, 20, 45]" in liked.repaired
    assert liked.score == strange.score
    assert strange.not_choosable == "no_box_survived"
    with pytest.raises(UserError, match="--spr_clip .*"):
        made({"names": "clip"}, spr_clip="/nowhere")[0].on("cpu")


def test_what_is_drawn_lies_on_the_picture_itself(made):
    recipe, source = made({"tasks": ["relation"]})
    query = one_of(recipe, source, "relation")
    ((marks, again),) = recipe.draw(query, Judged(None, (unjudged(recipe.worked(query)),)))
    kinds = [(mark.kind, tuple(mark.xyxy)) for mark in marks]
    boxes = [(0, 0, 20, 20), (60, 30, 100, 50)]
    assert kinds == [(kind, box) for kind in ("truth", "written") for box in boxes] and again == marks
    assert [mark.name for mark in marks] == ["red circle", "blue square"] * 2
    spoken = [[recipe.worked(query)[slice(*span)] for span in mark.spans] for mark in marks[2:]]
    assert [json.loads(text)["id"] for (text,) in spoken] == ["red circle.1", "blue square.2"]
    shown, _ = made(form=None)
    with pytest.raises(UserError, match="nobody here knows the run's box format"):
        shown.question(query)
    assert [mark.kind for mark in shown.draw(query, Judged(None, (unjudged("any"),)))[0][0]] == ["truth"] * 2


def test_the_number_of_questions_is_limited_and_another_seed_asks_others(made, tiny_world, capsys):
    world = tiny_world(spr=12, geometry=True)
    flags = {"spr_annotations": str(world / "graphs" / "spr.json")}
    source = Source(None, str(world / "images"))
    recipes = [made(spr_seed=seed, spr_regions=9, **flags)[0] for seed in (0, 0, 1)]
    first, again, other = ([query.id for query in recipe.queries(source)] for recipe in recipes)
    assert len(first) == 9 and first == again and not set(first) & set(other)
    capsys.readouterr()
    assert len(made(**flags)[0].queries(source)) == 36
    assert "36 questions are made of the 10000 asked for" in capsys.readouterr().err


def test_pictures_that_are_excluded_and_objects_that_are_small_are_left_out(made, tmp_path, capsys):
    (tmp_path / "none.txt").write_text("b.png\n")
    assert made(spr_exclude=[str(tmp_path / "none.txt")], spr_regions=1)[0].queries(
        Source(None, str(tmp_path))
    )
    assert "none of the 1 pictures that it names was found" in capsys.readouterr().err
    (tmp_path / "gone.txt").write_text("a.png\n")
    recipe, source = made(spr_exclude=[str(tmp_path / "gone.txt")])
    with pytest.raises(UserError, match="graphs.json gives no question .*excluded"):
        recipe.queries(source)
    queries = made({"per_picture": 20}, spr_min_area=50.0)[0].queries(source)
    assert (
        queries and not any("green ring" in query.text for query in queries) and source.skipped["small"] == 1
    )


def test_rows_of_one_s_own(made, tmp_path):
    scene = json.dumps({"objects": [{"id": "Red_circle.3", "bbox": [0, 0, 20, 20]}]})
    row = {"image": "a.png", "question_only": "Where?", "options": ["left", "right"]}
    rows = [{**row, "answer": f"<scene>{scene}</scene><answer>A</answer>"}] * 2
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe, source = made(spr_annotations=str(tmp_path / "rows.jsonl"))
    (query,) = recipe.queries(source)
    assert query.text == "Where?\nOptions:\n(A) left\n(B) right" and query.truth["answer"] == "(A) left"
    assert recipe.measure([recipe.worked(query)], [query])["reward"] == pytest.approx(1.0)


def test_what_is_missing_is_named(made, tmp_path):
    with pytest.raises(UserError, match="--spr_annotations: name the file of scene graphs"):
        find_recipe(SPRConfig(spr=True, spr_recipe="spatial_thinker"), box_format("llava", "pad")).queries(
            Source()
        )
    with pytest.raises(UserError, match="--spr_samples 1"):
        made(spr_samples=1)[0].on("cpu")
    made(spr_samples=1, spr_pairing=["repaired"])[0].on("cpu")
    (tmp_path / "a.png").unlink()
    recipe, source = made()
    with pytest.raises(UserError, match="graphs.json gives no question .*missing_image"):
        recipe.queries(Source(None, source.image_folder, Counter()))
