"""Boxes in ``<scene>`` take the true coordinates or go, and nothing else of the text changes."""

import numpy as np
import pytest

from spr_plugin.formats import box_format
from spr_plugin.recipes.spatial_thinker.answers import read, written
from spr_plugin.recipes.spatial_thinker.graph import graph_of
from spr_plugin.recipes.spatial_thinker.prompts import seen
from spr_plugin.recipes.spatial_thinker.repair import mend
from spr_plugin.recipes.spatial_thinker.reward import reward, same_name
from spr_plugin.recipes.spatial_thinker.settings import ThinkerSettings

TRUE = {
    "objects": [
        {"id": "red circle.1", "bbox": [10, 10, 30, 30]},
        {"id": "blue square.2", "bbox": [50, 50, 90, 90]},
    ],
    "relationships": [{"subject": "red circle.1", "predicate": "left of", "object": "blue square.2"}],
}
VIEW = seen(box_format("llava", "square"), 100, 100)


def mended(text, true=TRUE, view=VIEW):
    answer = read(text)
    right = graph_of(true)
    agree = same_name(answer.graph.names, right.names) > 0
    return mend(answer, view.pixels(answer.graph.boxes), right.boxes, agree, view.steps)


def said(*objects, relations=(), thought="it is left."):
    rows = [{"id": id, "bbox": list(box)} for id, box in objects]
    links = [{"subject": a, "predicate": "left of", "object": b} for a, b in relations]
    return written("I see it.", {"objects": rows, "relationships": links}, thought, "(A) left of")


NEAR, BY, FAR = (
    ("red circle.7", (12, 11, 31, 30)),
    ("blue square.8", (52, 50, 88, 92)),
    ("red circle.9", (60, 0, 70, 9)),
)


def test_good_boxes_become_true_ones_and_the_rest_go_with_their_relations():
    text = said(
        FAR, NEAR, BY, relations=[("red circle.7", "blue square.8"), ("red circle.9", "red circle.7")]
    )
    fixed = mended(text)
    assert (fixed.kept, fixed.dropped) == (2, 1)
    right = said(
        ("red circle.7", (10, 10, 30, 30)),
        ("blue square.8", (50, 50, 90, 90)),
        relations=[("red circle.7", "blue square.8")],
    )
    assert fixed.text == right
    assert mended(right).text == right


def test_of_two_on_one_object_the_better_stays():
    fixed = mended(said(("red circle.1", (10, 10, 40, 30)), NEAR))
    assert fixed.text == said(("red circle.7", (10, 10, 30, 30)))


def test_another_name_is_another_object():
    fixed = mended(said(("green ring.1", (10, 10, 30, 30)), BY))
    assert (fixed.kept, fixed.dropped) == (1, 1) and "ring" not in fixed.text


def test_nothing_left():
    fixed = mended(said(FAR, relations=[("red circle.9", "red circle.9")]))
    assert (fixed.kept, fixed.dropped) == (0, 1) and fixed.text == said()


@pytest.mark.parametrize("thought", ["it lies at 12, 11.", "the box [12, 11, 31, 30] is left."])
def test_reasoning_that_quotes_numbers_is_left_alone(thought):
    text = said(NEAR, BY, FAR, thought=thought)
    assert mended(text) == (text, 0, 0)


def test_ids_are_no_numbers():
    fixed = mended(said(NEAR, BY, thought="red circle.7 is left of blue square.8"))
    assert fixed.kept == 2 and "[10, 10, 30, 30]" in fixed.text
    bus = {"objects": [{"id": "bus 42.1", "bbox": [10, 10, 30, 30]}]}
    named = said(("bus 42.3", (11, 10, 30, 31)), thought="the bus 42 is left.")
    assert mended(named, bus).kept == 1


def test_the_layout_of_the_json_stays():
    text = said(NEAR, FAR, BY)
    for a, b in (("{", "{ \n"), (", ", " ,\n\t"), (":", " : ")):
        scene = text[text.index("<scene>") : text.index("</scene>")]
        text = text.replace(scene, scene.replace(a, b))
    fixed = mended(text).text
    assert fixed.count("\n") < text.count("\n") and '"id" :  "red circle.7" ,\n' in fixed
    assert read(fixed).graph.boxes.tolist() == [[10, 10, 30, 30], [50, 50, 90, 90]]


def test_tricky_texts():
    """Braces and quotes in keys and predicates, keys in another order, one twice, relationships first."""
    text = """<observe>o</observe><scene>{"note": "}],{\\"objects\\": [", "relationships": [
        {"object": "red circle.7", "predicate": "is } \\" ] of", "subject": "blue square.8", "why": [{}]}
        ], "objects": [{"bbox": [1, 1, 2, 2], "bbox": [12, 11, 31, 30], "id": "red circle.7"},
        {"bbox": [0, 0, 1, 1], "id": "blue square.8"}]}</scene><think>t</think><answer>a</answer>"""
    fixed = mended(text)
    answer = read(fixed.text)
    assert answer.graph.ids == ("red circle.7",) and answer.graph.boxes.tolist() == [[10, 10, 30, 30]]
    assert answer.graph.triples == () and '"bbox": [1, 1, 2, 2]' in fixed.text


def test_coordinates_are_those_of_the_picture_that_the_model_sees():
    view = seen(box_format("llava", "pad"), 100, 50)  # in a square, 25 pixels lower
    true = {"objects": [{"id": "cat.1", "bbox": [10, 10, 30, 30]}]}
    fixed = mended(said(("cat.1", (12, 36, 31, 55))), true, view)
    assert "[10, 35, 30, 55]" in fixed.text


def test_repair_never_lowers_what_boxes_are_worth():
    rng, true = np.random.default_rng(0), graph_of(TRUE)
    for _ in range(200):
        rows = [
            (one["id"], (np.array(one["bbox"]) + rng.integers(-12, 13, 4)).tolist())
            for one in TRUE["objects"]
        ]
        text = said(*rows)
        fixed = mended(text)
        if fixed.kept == 2:
            worth = [
                reward(read(one), true, "(A) left of", read(one).graph.boxes, (100, 100), ThinkerSettings())[
                    1
                ]
                for one in (text, fixed.text)
            ]
            assert worth[1] >= worth[0] and worth[1] == pytest.approx(1 - 0.2 * 0.3)
