"""The reward equals a naive reading of its formulas, has the values worked out by hand, and pays no flood."""

import json
import random

import numpy as np
import pytest

from spr_plugin.recipes.spatial_thinker.answers import read, written
from spr_plugin.recipes.spatial_thinker.graph import graph_of
from spr_plugin.recipes.spatial_thinker.reward import (
    answer_term,
    ciou,
    count_term,
    matched,
    relation_term,
    reward,
    same_name,
    scene_term,
    total,
)
from spr_plugin.recipes.spatial_thinker.settings import ThinkerSettings

from .naive import naive_ciou, naive_reward

NAMES = ("red circle", "blue square", "green ring")
SIZE = (160, 90)
RIGHT = "(B) left of"
PAPER = ThinkerSettings()


def box(rng, width=SIZE[0], height=SIZE[1]):
    x, y = rng.uniform(0, width - 2), rng.uniform(0, height - 2)
    return [x, y, rng.uniform(x + 1, width), rng.uniform(y + 1, height)]


def scene(rng, count, relations=0):
    ids = [f"{rng.choice(NAMES)}.{number}" for number in range(1, count + 1)]
    pairs = [rng.choices(ids, k=2) for _ in range(relations)] if ids else []
    return {
        "objects": [{"id": id, "bbox": box(rng)} for id in ids],
        "relationships": [{"subject": a, "predicate": "left of", "object": b} for a, b in pairs],
    }


def paid(text, truth, settings=PAPER, right=RIGHT, size=SIZE):
    """(terms, R) of an answer in pixels of the picture."""
    answer = read(text)
    said = answer.graph.boxes if answer else np.zeros((0, 4))
    return reward(answer, graph_of(truth), right, said, size, settings)


def answer(graph, option=RIGHT):
    return written("I see it.", graph, "so it is.", option)


def drawn(rng, truth):
    """An answer as models give them: near the truth, or bad in one of many ways."""
    graph = (
        json.loads(json.dumps(truth))
        if rng.random() < 0.6
        else scene(rng, rng.randint(0, 4), rng.randint(0, 3))
    )
    for one in graph["objects"]:
        one["bbox"] = [value + rng.uniform(-9, 9) for value in one["bbox"]]
        if rng.random() < 0.05:
            one["bbox"] = one["bbox"][2:] + one["bbox"][:2]
    if rng.random() < 0.3 and graph["objects"]:
        graph["objects"].pop(rng.randrange(len(graph["objects"])))
    if rng.random() < 0.05 and graph["objects"]:
        graph["objects"][0]["color"] = "red"
    if rng.random() < 0.05 and graph["objects"]:
        graph["objects"].append(graph["objects"][0])
    rng.shuffle(graph["objects"])
    text = answer(graph, rng.choice([RIGHT, RIGHT, " (b) LEFT OF\n", "(A) right of", "left of", "B"]))
    if rng.random() < 0.2:
        text = rng.choice(
            [
                text.replace("<think>", "", 1),
                text.replace("</scene>", "", 1),
                text + "<answer>(B) left of</answer>",
                text.replace('"objects"', "objects", 1),
                text[: rng.randrange(len(text))],
                "It is left of it.",
            ]
        )
    return text


def test_it_equals_a_naive_reading_on_a_thousand_answers():
    rng, values = random.Random(0), []
    for _ in range(1000):
        truth = scene(rng, rng.randint(1, 4), rng.randint(0, 3))
        text = drawn(rng, truth)
        values.append(paid(text, truth)[1])
        assert values[-1] == pytest.approx(naive_reward(text, truth, RIGHT, *SIZE), abs=1e-9), text
    # All kinds came by: no format, wrong and right answers.
    assert min(values) == 0 and max(values) > 0.9 and 50 < sum(0 < value <= 0.3 for value in values) < 950


def test_ciou_is_one_on_itself_and_as_worked_by_hand():
    boxes = [[0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 1]]
    assert np.diag(ciou(boxes, boxes)).tolist() == pytest.approx([1, 1, 1])
    # 1/7 − 2/18, the shapes being one.
    assert ciou(boxes[:1], boxes[1:2])[0, 0] == pytest.approx(1 / 7 - 2 / 18)


@pytest.mark.parametrize("bad", [[2, 2, 0, 0], [1, 1, 1, 5], [0, 5, 4, 1], [1e308, 0, -1e308, 1]])
def test_what_is_no_box_is_as_far_as_can_be(bad):
    assert ciou([bad], [[0, 0, 2, 2]]).tolist() == [[-1.0]] == ciou([[0, 0, 2, 2]], [bad]).tolist()


def test_boxes_far_off_the_picture_are_numbers_still():
    values = ciou([[-1e300, -1e300, 1e300, 1e300], [1e299, 1e299, 1e300, 1e300]], [[0, 0, 0.5, 0.5]])
    assert np.isfinite(values).all() and (values >= -1).all() and (values < 0.1).all()


def test_random_boxes_that_do_not_touch_have_a_third_on_average_and_a_half_at_most():
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.1, 0.6, (300, 2))
    low = rng.random((300, 2)) * (1 - sides)
    boxes = np.hstack([low, low + sides])
    shares = (ciou(boxes, boxes) + 1) / 2
    near = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) > np.maximum(boxes[:, None, :2], boxes[:, :2])
    apart = shares[~near.all(-1)]
    assert apart.mean() == pytest.approx(0.35, abs=0.02) and apart.max() <= 0.5 and len(apart) > 30000
    for one, other in rng.integers(0, 300, (300, 2)):
        assert 2 * shares[one, other] - 1 == pytest.approx(naive_ciou(boxes[one], boxes[other]))


def test_the_best_wrong_answer_has_less_than_the_worst_right_one():
    truth = scene(random.Random(1), 3, 2)
    assert paid(answer(truth, "(A) right of"), truth)[1] == pytest.approx(0.30)
    assert paid(answer({"objects": [], "relationships": []}), truth)[1] == pytest.approx(0.60)
    assert paid(answer(truth), truth)[1] == pytest.approx(1.0)
    worst = {"objects": [{"id": f"cat.{n}", "bbox": [5, 5, 1, 1]} for n in range(40)], "relationships": []}
    assert paid(answer(worst), truth)[1] == pytest.approx(0.60)


def test_a_graph_without_the_answer_gains_nothing():
    """However well it is drawn, and whether the tag is there, wrong or holds half of the option."""
    truth = scene(random.Random(2), 2, 1)
    poor = {"objects": [{"id": one["id"], "bbox": [1, 1, 2, 2]} for one in truth["objects"]]}
    poor["relationships"] = truth["relationships"]
    for option in ("(A) right of", "", "B", "left of", "(B)"):
        assert paid(answer(truth, option), truth) == paid(answer(poor, option), truth)
    assert paid(answer(truth).replace("answer>", "result>"), truth)[1] == 0


def flooded(graph, boxes, names=NAMES):
    more = [{"id": f"{names[n % len(names)]}.{n + 100}", "bbox": one} for n, one in enumerate(boxes)]
    return {**graph, "objects": graph["objects"] + more}


@pytest.mark.parametrize("count", ["true", "larger"])
def test_a_flood_of_boxes_gains_nothing(count):
    """Neither a grid of boxes of every name nor, for boxes as good as those of chance, the truth itself."""
    rng, settings = random.Random(3), ThinkerSettings(count=count)
    grid = [[x, y, x + 32, y + 30] for x in range(0, 160, 32) for y in range(0, 90, 30)]
    least = {"true": 0.3, "larger": 0.15}[count]
    looked = 0
    for _ in range(80):
        truth = scene(rng, rng.randint(1, 3), rng.randint(0, 2))
        near = rng.uniform(0, 60)
        said = json.loads(json.dumps(truth))
        for one in said["objects"]:
            one["bbox"] = [value + rng.uniform(-near, near) for value in one["bbox"]]
        before = paid(answer(said), truth, settings)[1]
        pairs = zip(said["objects"], truth["objects"])
        shares = [(naive_ciou(a["bbox"], b["bbox"]) + 1) / 2 for a, b in pairs]
        for boxes in (grid[: rng.randint(1, 15)], grid * 3):
            after = paid(answer(flooded(said, boxes)), truth, settings)[1]
            assert after <= before + 1e-9 or min(shares) < least
        if min(shares) >= least:
            looked += 1
            own = [one["bbox"] for one in truth["objects"]]
            names = [one["id"].split(".")[0] for one in truth["objects"]]
            for boxes in (own, own + grid, own[:1]):
                assert paid(answer(flooded(said, boxes, names)), truth, settings)[1] <= before + 1e-9
    assert looked > 25


# --- the terms and their options


def graph(objects=1, relations=0):
    return graph_of(scene(random.Random(0), objects, relations))


def test_counts():
    assert count_term(graph(2), graph(2)) == 1 and count_term(graph(4), graph(2)) == 0
    assert count_term(graph(1), graph(2)) == 0.5
    assert count_term(graph(2, 0), graph(2, 2)) == pytest.approx(0.7)
    assert count_term(graph(2, 3), graph(2, 2)) == pytest.approx(0.7 + 0.15)
    # No true relation: what is said of them counts for nothing.
    assert count_term(graph(2, 3), graph(2, 0)) == 1
    assert count_term(graph(4), graph(2), "larger") == 0.5 and count_term(graph(1), graph(2), "larger") == 0.5


def test_the_sum_of_the_code_and_the_mean_of_the_text():
    true, said = [[0, 0, 4, 4], [6, 6, 9, 9]], [[0, 0, 4, 4]]
    places = ciou(said, true)
    pairs = matched(places, np.ones((1, 2)))
    assert pairs == [(0, 0)]
    assert scene_term(places, pairs, "code_sum", "true") == pytest.approx(0.5)
    assert scene_term(places, pairs, "text_mean", "true") == pytest.approx(1.0)
    three = ciou([*said, [7, 0, 8, 1], [0, 7, 1, 8]], true)
    both = [(0, 0), (1, 1)]
    halves = (1 + (three[1, 1] + 1) / 2) / 2
    assert scene_term(three, both, "code_sum", "true") == pytest.approx(halves)
    assert scene_term(three, both, "code_sum", "larger") == pytest.approx(halves * 2 / 3)
    assert scene_term(ciou([], true), [], "text_mean", "true") == 0
    assert scene_term(ciou([], []), [], "code_sum", "true") == 1
    assert scene_term(ciou(said, []), [], "code_sum", "true") == 0


def test_names_weigh_more_than_places():
    places = ciou([[0, 0, 4, 4], [6, 6, 9, 9]], [[6, 6, 9, 9], [0, 0, 4, 4]])
    assert matched(places, np.ones((2, 2))) == [(0, 1), (1, 0)]
    assert matched(places, same_name(["cat", "dog"], ["cat", "dog"])) == [(0, 0), (1, 1)]


def test_the_answer_is_the_whole_text():
    assert answer_term(" (b) Left of ", RIGHT) == 1
    assert answer_term("(B)", RIGHT) == answer_term("left of", RIGHT) == answer_term("", RIGHT) == 0


def test_without_the_format_there_is_nothing():
    assert total(0.0, 1.0, 1.0, 1.0) == 0 and total(1.0, 1.0, 0.0, 1.0) == pytest.approx(0.3)


def test_relation_words_count_where_they_are_asked_to():
    truth = {
        "objects": [{"id": "cat.1", "bbox": [0, 0, 40, 40]}, {"id": "dog.2", "bbox": [80, 40, 120, 80]}],
        "relationships": [{"subject": "cat.1", "predicate": "left of", "object": "dog.2"}],
    }
    # The same under ids of the answer's own.
    said = json.loads(
        json.dumps(truth).replace("cat.1", "cat.7").replace("dog.2", "dog.5").replace("left", "Left")
    )
    right, pairs = graph_of(truth), [(0, 0), (1, 1)]
    assert relation_term(graph_of(said), right, pairs) == 1
    wrong = json.loads(json.dumps(said).replace("Left of", "above"))
    assert relation_term(graph_of(wrong), right, pairs) == 0
    said["relationships"] *= 2  # the same twice is one
    flood = {**said, "relationships": said["relationships"] + wrong["relationships"] * 3}
    assert relation_term(graph_of(flood), right, pairs) == 0.5
    assert relation_term(graph_of({**truth, "relationships": []}), right, pairs) == 0
    assert paid(answer(wrong), truth)[1] == paid(answer(truth), truth)[1] == pytest.approx(1)
    half = ThinkerSettings(relation=0.5)
    assert paid(answer(truth), truth, half)[1] - paid(answer(wrong), truth, half)[1] == pytest.approx(0.1)
    assert paid(answer(flood), truth, half)[1] < paid(answer(truth), truth, half)[1]
