"""Each template's right option is right and its others are wrong, by the boxes and triples of the picture."""

import json
import random
import re
from collections import Counter

import pytest

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import Annotation
from spr_plugin.recipes.spatial_thinker.graph import Triple
from spr_plugin.recipes.spatial_thinker.pictures import GraphImage, GraphImages
from spr_plugin.recipes.spatial_thinker.questions import NUMBERS, OPPOSITES, TEMPLATES, questions
from spr_plugin.recipes.spatial_thinker.settings import TASKS

PLACE = Space.pixels(100, 100)


def image(objects, triples=()):
    """A picture of ``name: box`` or ``(name, box)``, whose ids count from 1."""
    rows = list(objects.items() if isinstance(objects, dict) else objects)
    annotations = tuple(
        Annotation(f"{name}.{n}", name, Box(*box, PLACE)) for n, (name, box) in enumerate(rows, 1)
    )
    return GraphImage("a", "a.png", 100, 100, annotations, tuple(Triple(*one) for one in triples))


def asked(image, task, seeds=60, other=lambda rng: None):
    """All different questions of one task that so many seeds give."""
    found = [one for seed in range(seeds) for one in questions(image, [task], 3, seed, other)]
    return list({(one.text, one.right, one.wrong): one for one in found}.values())


@pytest.fixture(scope="module")
def world(tiny_world):
    """(images, their file's content) of the tiny world's graphs."""
    folder = tiny_world(spr=40, geometry=True)
    file = folder / "graphs" / "spr.json"
    return GraphImages(str(file), str(folder / "images"), Counter()), json.loads(file.read_text())


def holds(one, scene):
    """Whether an option is true of a picture, read off its boxes and the words of the question alone."""
    boxes = {}
    for row in scene["objects"]:
        boxes.setdefault(row["id"].split(".")[0], []).append(row["bbox"])
    area = lambda b: (b[2] - b[0]) * (b[3] - b[1])
    middle = lambda b: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)
    names = re.findall(r"(?:red|green|blue|yellow|purple|orange|white|cyan) \w+", one.text)
    places = [boxes[name][0] for name in names]

    def greater(values):
        ratio = max(values) / min(values)
        return "the same" if ratio <= 1.1 else names[-2:][values.index(max(values))] if ratio >= 1.5 else None

    if one.task == "relation":
        stated = {
            (row["subject"].split(".")[0], row["predicate"], row["object"].split(".")[0])
            for row in scene["relationships"]
        }
        stated |= {(b, OPPOSITES[p], a) for a, p, b in stated}
        return lambda option: (names[0], option, names[1]) in stated
    if one.task == "size":
        return lambda option: option == greater([area(b) for b in places])
    if one.task == "distance":
        (x, y), *others = map(middle, places)
        near = [1 / ((a - x) ** 2 + (b - y) ** 2) ** 0.5 for a, b in others]
        return lambda option: option == greater(near)
    if one.task == "location":
        x, y = middle(places[0])
        return lambda option: (
            option == f"{'left' if x < 48 else 'right'} and {'above' if y < 48 else 'below'}"
        )
    if one.task == "count":
        return lambda option: option == NUMBERS[len(places and boxes[names[0]])]
    return lambda option: option in boxes


@pytest.mark.parametrize("task", TASKS)
def test_one_option_of_four_is_true(world, task):
    images, content = world
    found = [
        (one, content[picture.id])
        for picture in images
        for one in questions(picture, [task], 4, 0, images.some_name)
    ]
    assert len(found) > 40
    for one, scene in found:
        true = holds(one, scene)
        assert len({one.right, *one.wrong}) == 4, one
        assert true(one.right) and not any(map(true, one.wrong)), one


@pytest.mark.parametrize("task", TASKS)
def test_the_graph_is_of_what_is_asked_about(world, task):
    """One, two or three objects, and as many as are counted: the names in the question, and in its answer."""
    images, _ = world
    for picture in images:
        for one in questions(picture, [task], 4, 1, images.some_name):
            labels = {a.id: a.label for a in picture.annotations}
            named = {label for label in labels.values() if label in one.text or label == one.right}
            assert {labels[id] for id in one.about} == named and len(set(one.about)) == len(one.about)
            assert len(one.about) == {
                "relation": 2,
                "size": 2,
                "distance": 3,
                "location": 1,
                "existence": 1,
            }.get(task, NUMBERS.index(one.right) if task == "count" else 0)


def test_each_task_has_its_turn(world):
    images, _ = world
    told = Counter(
        one.task for picture in images for one in questions(picture, TASKS, len(TASKS), 3, images.some_name)
    )
    assert set(told) == set(TASKS) == set(TEMPLATES) and min(told.values()) > 20


def test_they_are_the_same_for_a_seed_and_others_for_another(world):
    images, _ = world
    first = [questions(one, TASKS, 3, 5, images.some_name) for one in images]
    assert first == [questions(one, TASKS, 3, 5, images.some_name) for one in images]
    assert first != [questions(one, TASKS, 3, 6, images.some_name) for one in images]


def test_right_answers_have_no_place_of_their_own(world):
    """Where the right option stands is drawn later; among counts it is not always the least."""
    images, _ = world
    ranks = Counter()
    for picture in images:
        for one in questions(picture, ["count"], 3, 0, images.some_name):
            ranks[sorted([one.right, *one.wrong], key=NUMBERS.index).index(one.right)] += 1
    assert len(ranks) >= 3


# --- by hand

FOUR = {"cat": (0, 0, 20, 20), "dog": (60, 60, 90, 90), "cup": (70, 0, 90, 18), "hat": (0, 70, 10, 80)}


def test_what_boxes_make_true_is_no_wrong_option():
    """The cat is left of and above the dog; nobody annotated "above"."""
    one_triple = image(FOUR, [("cat.1", "left of", "dog.2"), ("hat.4", "behind", "cup.3")])
    for one in asked(one_triple, "relation"):
        if "the cat" in one.text:
            assert one.right == "left of" and set(one.wrong) <= {
                "right of",
                "below",
                "behind",
                "in front of",
                "inside",
            }


@pytest.mark.parametrize(("cat", "there"), [((0, 0, 9, 9), True), ((62, 61, 70, 68), False)])
def test_a_graph_of_one_triple_has_wrong_options_by_its_boxes(cat, there):
    """A cat that lies apart is not inside the dog's box; one that lies in it may be."""
    two = image({"cat": cat, "dog": (60, 60, 99, 98)}, [("cat.1", "near", "dog.2")])
    found = asked(two, "relation")
    assert bool(found) is there and all({*one.wrong} == {"right of", "below", "inside"} for one in found)


def test_predicates_that_share_a_word_are_not_told_apart():
    triples = [("cat.1", "on", "dog.2"), ("cup.3", "on top of", "hat.4"), ("cup.3", "wearing", "dog.2")]
    found = [one for one in asked(image(FOUR, triples), "relation") if "the cat" in one.text]
    assert found and all("on top of" not in one.wrong for one in found)


def test_names_that_two_objects_have_are_not_spoken_of():
    two = image(
        [
            ("cat", (0, 0, 20, 20)),
            ("cat", (50, 50, 99, 99)),
            ("red cats", (0, 60, 20, 80)),
            ("dog", (60, 0, 90, 30)),
        ]
    )
    for task in ("size", "distance", "location", "relation"):
        assert all("cat" not in one.text for one in asked(two, task))
    assert asked(two, "location") and not asked(two, "count")[0].text.endswith("cats?")


def test_a_thing_boxed_twice_is_not_counted():
    twice = image([("cat", (0, 0, 20, 20)), ("cat", (1, 1, 21, 21)), ("dog", (50, 50, 60, 60))])
    assert {one.text for one in asked(twice, "count")} == {"How many objects in the picture are: dog?"}


def test_a_thing_that_may_be_there_under_another_name_is_no_wrong_option():
    names = ["green cats", "animal", "tree", "car", "cat", "bus"]
    found = asked(image({"cat": (0, 0, 20, 20)}), "existence", other=lambda rng: rng.choice(names))
    assert found and all(set(one.wrong) <= {"animal", "tree", "car", "bus"} for one in found)


@pytest.mark.parametrize(
    ("second", "right"),
    [
        ((50, 0, 70, 20), "the same"),
        ((50, 0, 90, 40), "dog"),
        ((50, 0, 60, 10), "cat"),
        ((50, 0, 73, 23), None),
    ],
)
def test_sizes_are_clear_or_the_same(second, right):
    three = image({"cat": (0, 0, 20, 20), "dog": second, "cup": (0, 40, 80, 99)})
    found = [one for one in asked(three, "size") if "the cup" not in one.text]
    assert {one.right for one in found} == ({right} if right else set())


@pytest.mark.parametrize(("x", "there"), [(30, True), (41, False), (59, False), (70, True)])
def test_what_lies_in_the_middle_is_on_no_side(x, there):
    assert bool(asked(image({"cat": (x - 5, 0, x + 5, 10)}), "location")) is there


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_too_plain_gives_none(task):
    assert questions(image({}), [task], 3, 0, lambda rng: None) == []
    plain = image({"cat": (45, 45, 55, 55)})
    found = questions(plain, [task], 3, 0, lambda rng: None)
    assert [one.right for one in found] == (["one"] if task == "count" else [])


def test_no_other_random_number_is_drawn():
    """The host's training draws from the process's own generator."""
    state = random.getstate()
    questions(image(FOUR), TASKS, 3, 0, lambda rng: None)
    assert random.getstate() == state
