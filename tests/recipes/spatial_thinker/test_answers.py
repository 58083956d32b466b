"""Which answers keep to the format."""

import json
import random

import pytest

from spr_plugin.recipes.spatial_thinker.answers import read, written

GRAPH = {"objects": [{"id": "cat.1", "bbox": [1, 2, 3, 4]}], "relationships": []}
GOOD = written("I see a cat.", GRAPH, "it is black.", "(A) black")


def test_a_good_one():
    answer = read(f"Sure!\n{GOOD}\nDone.")
    assert answer.option == "(A) black" and answer.inside("think") == "it is black."
    assert answer.graph.ids == ("cat.1",) and answer.graph.boxes.tolist() == [[1, 2, 3, 4]]


def test_the_order_of_the_tags_is_free():
    lines = GOOD.split("\n")
    assert read("\n".join(reversed(lines))).option == "(A) black"


def test_json_may_be_laid_out_as_it_likes():
    spread = GOOD.replace("{", "{\n\t").replace(",", " ,\n")
    assert read(spread).graph.boxes.tolist() == [[1, 2, 3, 4]]


BAD = {
    "nothing": "",
    "words": "It is black.",
    "no observing": GOOD.replace("<observe>", ""),
    "an open end": GOOD.replace("</answer>", ""),
    "two answers": GOOD + "<answer>(B) white</answer>",
    "two ends": GOOD + "</think>",
    "inside out": GOOD.replace("<think>", "</thonk>")
    .replace("</think>", "<think>")
    .replace("thonk", "think"),
    "no JSON": GOOD.replace('"id"', "id"),
    "a fence around it": GOOD.replace("<scene>", "<scene>```json"),
    "no graph": GOOD.replace("bbox", "box"),
    "nested too deep": GOOD.replace("[1, 2, 3, 4]", "[" * 100_000),
    "cut off": GOOD[:80],
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_ones(kind):
    assert read(BAD[kind]) is None


def test_whatever_a_text_is_reading_never_raises():
    rng = random.Random(0)
    for _ in range(2000):
        text = list(GOOD)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 5)] = rng.choice(
                ["", "<", "\ud83d", "[[", '"', "<scene>", "\x00"]
            )
        read("".join(text))


def test_each_object_is_found_where_it_stands():
    """Beside triples, and not at all where a list that counts for nothing has objects too."""
    ids = ["cat.1", "dog.2"]
    triple = {"subject": "cat.1", "predicate": "says {hello} to", "object": "dog.2"}
    scene = {"objects": [{"id": id, "bbox": [1, 2, 3, 4]} for id in ids], "relationships": [triple]}
    text = written("I see a cat.", scene, "it is black.", "(A) black")
    assert [json.loads(text[slice(*span)])["id"] for (span,) in read(text).places] == ids
    twice = text.replace('{"objects"', '{"objects": [{"id": "cow.9", "bbox": [1, 2, 3, 4]}], "objects"')
    assert read(twice).graph.ids == tuple(ids) and read(twice).places == [(), ()]
