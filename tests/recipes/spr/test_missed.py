"""Objects that a repaired answer misses: in which order a model names them, in whose words, and what is
counted.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.judging import judge_all
from spr_plugin.recipes.spr.missed import KEYS, UNKNOWN, Order, measured_order
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import spr_repair
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.recipes.spr.scoring import SPRScorer
from spr_plugin.runs.log import Log
from tests.paper import PAPER

from .by_hand import FORM, PICTURE, SPACE

LEFT, MIDDLE, RIGHT = (0, 0, 20, 20), (30, 40, 60, 60), (70, 10, 90, 90)
NAMES = "dog", "cat", "tall vase"


class Words:
    """A similarity by the number of words."""

    def score(self, picture, asked):
        return [(0.01 * len(text.split()), 0.0) for _, text in asked]


def query(names=NAMES, boxes=(LEFT, MIDDLE, RIGHT), path="/a.jpg"):
    objects = tuple(Annotation(n, name, Box(*box, SPACE)) for n, (name, box) in enumerate(zip(names, boxes)))
    return region_query(AnnotatedImage("7", path, 100, 100, objects), Box(0, 0, 100, 100, SPACE), 0)


def recipe(order=None, **flags):
    config = SPRConfig(**{**PAPER, "spr_add_missed": True, "spr_min_kept": 0.0, **flags})
    return SPR(
        config, FORM, spr_repair(config), SPRScorer(Words()), None, order or Order("left to right", 1, 9)
    )


def written(*corners):
    return FORM.write(Box(*corners, SPACE))


def judged(texts, of=None, asked=None, pooled=True):
    [found] = (of or recipe()).judge([PICTURE], [asked or query()], [texts], pooled)
    return found.answers


DOG, CAT, VASE = f"a dog {written(*LEFT)}", f"a cat {written(*MIDDLE)}", f"a tall vase {written(*RIGHT)}"


def test_what_one_misses_is_added_in_the_words_of_another_in_order():
    near = written(31, 41, 60, 60)
    one, two = judged([f"{DOG} and {VASE}.", f"a sleepy cat {near}."])
    assert one.repaired == f"{DOG}, a sleepy cat {written(*MIDDLE)} and {VASE}."
    assert one.repaired_terms["added"] == 1 and one.repaired_terms["missed"] == 0
    assert one.repaired_terms["s_loc"] == pytest.approx(1) and one.text == f"{DOG} and {VASE}."
    assert two.repaired == f"{DOG}, a sleepy cat {written(*MIDDLE)} and {VASE}."
    assert two.repaired_terms["added"] == 2


def test_the_annotation_s_label_comes_last():
    """A box behind a wrong name is nobody's words."""
    one, two = judged([f"{DOG}.", f"a cow {written(*MIDDLE)}."])
    assert one.repaired == f"{DOG}, {CAT} and {VASE}."
    assert two.repaired_terms["added"] == 2  # the dog and the vase; the cat's box has a name


def test_of_several_the_words_of_the_best_box_count():
    texts = [DOG, f"a cat {written(30, 40, 58, 55)}", f"a grey cat {written(30, 40, 60, 59)}"]
    assert f"a grey cat {written(*MIDDLE)}" in judged(texts)[0].repaired


@pytest.mark.parametrize(
    ("text", "missed"),
    [(f"A dog {written(*LEFT)} holds a cat {written(*MIDDLE)}.", 1), (f"Two things: {DOG} and {CAT}.", 1)],
)
def test_where_nothing_can_be_put_in_the_answer_stays_and_is_counted(text, missed):
    (one,) = judged([text])
    assert one.repaired == text and one.repaired_terms["missed"] == missed and not one.repaired_terms["added"]


def test_a_lost_box_is_not_missed_twice_and_without_a_label_nothing_is_said():
    (one,) = judged([f"{DOG}, a bird {written(80, 80, 99, 99)} and {CAT}."], recipe(spr_repair="item"))
    assert one.repaired == f"{DOG}, {CAT} and {VASE}."
    (one,) = judged([f"{DOG}."], asked=query(("dog", "", "tall vase")))
    assert one.repaired == f"{DOG} and {VASE}." and one.repaired_terms["missed"] == 1


def test_without_an_order_and_where_an_answer_stands_alone_nothing_is_added():
    plain = recipe(UNKNOWN)
    for answers in (judged([f"{DOG}.", f"{CAT}."], plain), judged([f"{DOG}.", f"{CAT}."], pooled=False)):
        assert [one.repaired for one in answers] == [f"{DOG}.", f"{CAT}."]
        assert "added" not in answers[0].repaired_terms
    (one,) = judged(["a dog."])
    assert one.not_choosable == "no_box" and one.repaired == "a dog."


@pytest.mark.parametrize("flags", [{"spr_add_missed": False}, {"spr_repair": "none"}])
def test_no_order_is_measured_where_nothing_may_be_added(flags):
    asked = SPR(SPRConfig(**flags), FORM)
    assert asked.after([]) is asked


# --- the order


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ([[LEFT, MIDDLE, RIGHT]] * 5, "left to right"),
        ([[(0, 0, 9, 9), (50, 20, 59, 29), (20, 40, 29, 49)]] * 5, "top to bottom"),
        ([[(0, 50, 50, 99), (60, 50, 90, 80), (20, 10, 30, 20), (70, 0, 75, 5)]] * 5, "largest first"),
        ([[LEFT, MIDDLE], [MIDDLE, LEFT]] * 5, ""),
        ([[LEFT]] * 5, ""),
        ([], ""),
        ([[LEFT, MIDDLE]] * 3 + [[MIDDLE, LEFT]], "left to right"),  # three of four
        ([[LEFT, MIDDLE]] * 5 + [[MIDDLE, LEFT]] * 2, ""),
    ],
)
def test_the_order_is_measured(answers, name):
    order = measured_order(answers)
    assert order.name == name and order.pairs == sum(len(one) * (len(one) - 1) // 2 for one in answers)


@pytest.mark.parametrize("name", KEYS)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 2), max_size=5), st.tuples(*[st.integers(0, 9)] * 2))
def test_among_boxes_in_order_a_new_one_keeps_it(name, corners, new):
    boxes = sorted(((x, y, x + 5 + y, y + 6) for x, y in corners), key=KEYS[name])
    new = (*new, new[0] + 7, new[1] + 8)
    index = Order(name, 1, 1).index_among(boxes, new, 0)
    keys = [KEYS[name](one) for one in [*boxes[:index], new, *boxes[index:]]]
    assert keys == sorted(keys)


def test_without_an_order_chance_decides_and_the_same_way_again():
    indices = [Order().index_among([LEFT, RIGHT], MIDDLE, seed) for seed in range(60)]
    assert {*indices} == {0, 1, 2} and indices == [
        Order().index_among([LEFT, RIGHT], MIDDLE, seed) for seed in range(60)
    ]


def test_a_run_s_answers_tell_the_order_and_it_is_said(tmp_path, capfd):
    """All but those to "reference", which repeat the order of the annotations; through the stage itself."""
    PICTURE.save(tmp_path / "a.png")
    asked = query(path=str(tmp_path / "a.png"))
    texts = {"plain": f"{VASE}, {CAT}", "crop": f"{CAT}, {DOG}", "reference": f"{DOG}, {CAT}, {VASE}"}
    rows = {
        kind: {"id": kind, "query": asked.id, "kind": kind, "index": 0, "text": text}
        for kind, text in texts.items()
    }

    class Ready(SPR):
        def on(self, device):
            return self

    def made(rows, name):
        config = SPRConfig(**{**PAPER, "spr_add_missed": True, "spr_min_kept": 0.0})
        log = Log(tmp_path / name, 0)
        judge_all([asked], Ready(config, FORM, spr_repair(config), SPRScorer(Words())), "cpu", rows, log)
        log.close()
        (record,) = log.read().values()
        return {one["id"]: one["repaired"] for one in record["candidates"]}, capfd.readouterr().err

    both_ways = {"plain": f"{CAT}, {VASE}, {DOG}", "crop": f"{DOG}, {CAT}", "reference": texts["reference"]}
    _, told = made({kind: rows[kind] | {"text": text} for kind, text in both_ways.items()}, "chance")
    assert "the model names objects in no order that is known (50% of 4 pairs of boxes)" in told
    forwards = {"plain": f"{DOG}, {VASE}", "crop": f"{CAT}, {VASE}", "reference": f"{VASE}, {CAT}, {DOG}"}
    repaired, told = made({kind: rows[kind] | {"text": text} for kind, text in forwards.items()}, "left")
    assert "--spr_add_missed: the model names objects left to right (100% of 2 pairs of boxes)" in told
    assert repaired["plain"] == repaired["crop"] == f"{DOG}, {CAT}, {VASE}"
    assert repaired["reference"] == forwards["reference"]
