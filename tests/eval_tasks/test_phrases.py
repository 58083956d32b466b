"""Phrase grounding against a naive reading of the protocol."""

import random
import string

import pytest

from spr_plugin.eval_tasks import metrics, phrases
from tests.eval_tasks.naive import COUNT, STYLES, naive_iou, naive_said, near, random_box, said_by

WORDS = ["A man", "two dogs", "the red, striped shirt", "a woman's hat", "People", "a man"]


def strip(phrase):
    words = "".join(c for c in phrase.lower() if c not in string.punctuation).split()
    while len(words) > 1 and words[0] in ("a", "an", "the", "and", "or", "with", "some", "one"):
        words = words[1:]
    return " ".join(words)


@pytest.mark.parametrize("family", STYLES)
def test_phrases(family):
    """MERGED-BOXES, the first box of it, and ANY-BOX; phrases with several boxes, repeated phrases, lost
    phrases.
    """
    rng, several, repeated, lost = random.Random(family), 0, 0, 0
    for _ in range(COUNT // len(STYLES) + 1):
        width, height = rng.randint(150, 640), rng.randint(150, 640)
        chosen = [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
        asked = [{"id": f"{k}", "phrase": words, "boxes": [random_box(rng, width, height) for _ in range(rng.choice([1, 1, 2, 3]))]}  # noqa: E501
                 for k, words in enumerate(chosen)]  # fmt: skip
        parts = [said_by(rng, family, p["phrase"].replace(",", ""), [near(rng, b, width, height) for b in p["boxes"]][: rng.choice([1, 3])], width, height)  # noqa: E501
                 for p in asked if rng.random() > 0.15]  # fmt: skip
        answer = rng.choice([", ", ". ", "\n"] + ([] if family == "qwen2.5-vl" else [" and "])).join(parts)
        answer = rng.choice([answer, answer, answer, answer[: 2 * len(answer) // 3], "", "There is nothing."])
        doc = {
            "id": "1",
            "image_id": "a",
            "width": width,
            "height": height,
            "phrases": asked,
            "box_format": family,
        }
        scores = phrases.process_results(doc, [answer])
        said, used = naive_said(family, answer, width, height), {}
        for index, phrase in enumerate(asked):
            places = [boxes for words, boxes in said if strip(words) == strip(phrase["phrase"])]
            turn = used[strip(phrase["phrase"])] = used.get(strip(phrase["phrase"]), -1) + 1
            if sum(strip(other["phrase"]) == strip(phrase["phrase"]) for other in asked) == 1:
                boxes = [box for each in places for box in each] if places and places[0] else []
            else:
                boxes = places[min(turn, len(places) - 1)] if places else []
            several, repeated, lost = several + (len(boxes) > 1), repeated + (turn > 0), lost + (not boxes)
            around = lambda all: (
                min(b[0] for b in all),
                min(b[1] for b in all),
                max(b[2] for b in all),
                max(b[3] for b in all),
            )
            merged = naive_iou(around(boxes), around(phrase["boxes"])) if boxes else 0.0
            item = scores["details"]["items"][index]
            assert item["iou"] == pytest.approx(merged, abs=1e-9), (answer, phrase)
            assert (item["reason"] is not None) == (not boxes)
            phrase["first"] = naive_iou(boxes[0], around(phrase["boxes"])) if boxes else 0.0
            phrase["any"] = max(naive_iou(boxes[0], truth) for truth in phrase["boxes"]) if boxes else 0.0
        for name in ("first", "any"):
            for threshold in (0.5, 0.7, 0.9):
                expected = sum(phrase[name] >= threshold for phrase in asked) / len(asked)
                assert scores[f"{name}_Acc@{threshold}"] == {
                    "id": "1",
                    "image": "a",
                    "score": pytest.approx(expected),
                    "n": len(asked),
                }
    assert min(several, repeated, lost) > 20


@pytest.mark.parametrize(
    ("answer", "right", "reasons"),
    [
        (
            "a dog [1.6, 0.2, 0.3, 0.4], a cat [0.1, 0.1, 0.2, 0.2], a dog [0.1, 0.2, 0.5, 0.6]",
            (0, 1),
            ["out_of_range", None],
        ),
        (
            "a dog [[1.6, 0.2, 0.3, 0.4], [0.1, 0.2, 0.5, 0.6]], a cat [0.1, 0.1, 0.2, 0.2]",
            (0, 1),
            ["out_of_range", None],
        ),
        (
            "a dog (0.1, 0.2, 0.5, 0.6), a cat [0.1, 0.1, 0.2, 0.2]. A dog [0.1, 0.2, 0.5, 0.6].",
            (0, 1),
            ["malformed", None],
        ),
        (
            "a dog [0.1, 0.2, 0.5, nan] and [0.1, 0.2, 0.5, 0.6], a cat [0.5, 0.1, 0.2, 0.2]",
            (0, 0),
            ["malformed", "inverted"],
        ),
        (
            (
                "a dog [0.1, 0.2, 0.5, 0.6], a dog [1.6, 0.2, 0.3, 0.4], a cat [[0.1, 0.1, 0.2, 0.2], [7, 8,"
                " 9, 9]]"
            ),
            (1, 1),
            [None, None],
        ),
        (
            "a dog [0.1, 0.2] [0.1, 0.2, 0.5, 0.6], a cat (1) [0.1, 0.1, 0.2, 0.2]",
            (0, 0),
            ["phrase_not_grounded"] * 2,
        ),
    ],
)
def test_the_first_box_written_of_a_phrase_answers(answer, right, reasons):
    asked = [
        {"id": "0", "phrase": "A dog", "boxes": [[10, 20, 50, 60]]},
        {"id": "1", "phrase": "a cat", "boxes": [[10, 10, 20, 20]]},
    ]
    doc = {
        "id": "1",
        "image_id": "a",
        "width": 100,
        "height": 100,
        "phrases": asked,
        "box_format": "llava:square",
    }
    scores = phrases.process_results(doc, [answer])
    assert [item["reason"] for item in scores["details"]["items"]] == reasons
    assert [round(item["iou"]) for item in scores["details"]["items"]] == list(right)
    assert scores["parse_failure"]["score"] == sum(map(bool, reasons)) / 2


@pytest.mark.parametrize(
    ("first", "reason"), [("[10, 20, 50, 1600]", "out_of_range"), ("[10, 20, NaN, 60]", "malformed")]
)
def test_the_first_box_written_of_a_label_answers(first, reason):
    doc = {"id": "1", "image_id": "a", "width": 100, "height": 100, "phrases": [{"id": "0", "phrase": "a dog", "boxes": [[10, 20, 50, 60]]}],  # noqa: E501
           "box_format": "qwen3-vl"}  # fmt: skip
    rows = [f'{{"bbox_2d": {box}, "label": "a dog"}}' for box in (first, "[100, 200, 500, 600]")]
    item = phrases.process_results(doc, [f"[{', '.join(rows)}]"])["details"]["items"][0]
    assert (item["reason"], item["predicted"]) == (reason, None)
    item = phrases.process_results(doc, [f"[{', '.join(rows[::-1])}]"])["details"]["items"][0]
    assert (item["reason"], item["iou"]) == (None, pytest.approx(1))


def test_ferrets_question_keeps_order_and_repeats_and_loses_commas():
    asked = [
        {"id": "0", "phrase": words, "boxes": [[0.0, 0.0, 9.0, 9.0]]}
        for words in ("A man", "the red, striped shirt", "A man")
    ]
    doc = {"width": 100, "height": 100, "phrases": asked, "box_format": "ferret"}
    assert phrases.doc_to_text(doc) == "What are the locations of a man, the red striped shirt, a man?"


@pytest.mark.parametrize("threshold", metrics.THRESHOLDS)
def test_an_iou_of_exactly_a_threshold_is_a_hit(threshold):
    """Of the box around all, of the first box and of the first box with any truth, each at its own."""
    doc = {"id": "1", "image_id": "a", "width": 1000, "height": 1000, "box_format": "ferret",
           "phrases": [{"id": "0", "phrase": "a cat", "boxes": [[0.0, 0.0, 1000.0, 1000.0]]}]}  # fmt: skip
    for height, right in ((1000 * threshold, 1.0), (1000 * threshold - 1, 0.0)):
        scores = phrases.process_results(doc, [f"a cat [0, 0, 1000, {round(height)}]"])
        assert [scores[f"{kind}Acc@{threshold}"]["score"] for kind in ("", "first_", "any_")] == [right] * 3
        assert threshold != 0.5 or scores["ferret_R@1"]["score"] == right
