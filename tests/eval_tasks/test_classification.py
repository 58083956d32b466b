"""Classes against Ferret's scorer, character by character, and the question about one."""

import random
import re

import pytest

from spr_plugin.eval_tasks import classification
from tests.eval_tasks.naive import COUNT


def ferret_says(answer, names):
    """Ferret's scorer, character by character."""
    kept, index = "", 0
    while index < len(answer):
        start = index
        while start < len(answer) and answer[start].isspace():
            start += 1
        if start > index and answer.startswith("no", start):
            end = min((found for sign in ",." if (found := answer.find(sign, start)) >= 0), default=-1)
            if end >= 0:
                index = end + 1
                continue
        kept, index = kept + answer[index], index + 1
    return any(name in kept for name in names)


def test_classes():
    rng = random.Random(0)
    names = ["tea_cup", "dog", "notebook", "nose_ring", "hot_dog", "cat"]
    hits = 0
    for _ in range(COUNT):
        name, negative = rng.sample(names, 2)
        synonyms = rng.choice([[], ["puppy"], ["mug", "beaker"]])
        said, other = rng.choice([name, name, *synonyms]).replace("_", " "), negative.replace("_", " ")
        answer = rng.choice([f"The object is a {said}.", f"{other}.", f"not a {other}, a {said}", f"It is not a {said}, it is a {other}.", said.upper(), "",  # noqa: E501
                             f"a {said} or a {other}", f"It is a {said}", f"no {said}", "\n" * 5 + said, f"a {said}s thing", f"A {said}, nothing else."])  # fmt: skip  # noqa: E501
        doc = {"id": "1", "image_id": "a", "name": name, "synonyms": synonyms, "negative": negative}
        scores = classification.process_results(doc, [answer])
        own = [each.replace("_", " ") for each in (name, *synonyms)]
        assert scores["accuracy"]["score"] == float(ferret_says(answer, own)), answer
        words = " " + " ".join(re.findall(r"\w+", answer.lower())) + " "
        strict = any(f" {each} " in words for each in own) and f" {other} " not in words
        assert scores["strict_accuracy"]["score"] == float(strict), answer
        hits += strict
    assert 400 < hits < 1600


@pytest.mark.parametrize(
    "form, location, expected",
    [
        ("ferret", "box", "Is the object [250, 375, 500, 625] of the image a tea cup or a dog?"),
        ("ferret", "point", "Is the object [375, 500] of the image a tea cup or a dog?"),
        ("llava:pad", "point", "Is the object [0.38, 0.5] of the image a tea cup or a dog?"),
        ("qwen-vl", "point", "Is the object [374, 499] of the image a tea cup or a dog?"),
    ],
)
def test_the_question_of_a_class(form, location, expected):
    doc = {"width": 400, "height": 240, "bbox": [100.0, 90.0, 200.0, 150.0], "point": [150.0, 120.0], "name": "tea_cup", "negative": "dog",  # noqa: E501
           "truth_first": True, "location": location, "box_format": form}  # fmt: skip
    assert classification.doc_to_text(doc) == expected
    assert classification.doc_to_text({**doc, "truth_first": False}).endswith("a dog or a tea cup?")
