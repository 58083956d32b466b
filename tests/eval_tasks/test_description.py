"""Descriptions against a naive matching of all boxes with all objects."""

import itertools
import random

import pytest

from spr_plugin.eval_tasks import description
from tests.eval_tasks.naive import COUNT, STYLES, naive_iou, naive_said, near, random_box, said_by


def naive_match(boxes, truths):
    """Best one-to-one matching of IoU ≥ 0.5 by trying all."""
    table = [
        [overlap if (overlap := naive_iou(box, truth)) >= 0.5 else 0.0 for truth in truths] for box in boxes
    ]
    slots = list(range(len(truths))) + [None] * len(boxes)
    best = max(
        itertools.permutations(slots, len(boxes)),
        key=lambda p: sum(table[i][j] for i, j in enumerate(p) if j is not None),
        default=(),
    )
    return [(i, j, table[i][j]) for i, j in enumerate(best) if j is not None and table[i][j] > 0]


@pytest.mark.parametrize("family", STYLES)
def test_descriptions(family):
    """Objects named or not, boxes near or off, answers cut short, empty or with words alone."""
    rng, cut = random.Random(family), 0
    for _ in range(COUNT // len(STYLES) + 1):
        width, height = rng.randint(200, 640), rng.randint(200, 640)
        objects = [
            {"label": rng.choice(["dog", "red circle"]), "bbox": random_box(rng, width, height)}
            for _ in range(rng.randint(1, 3))
        ]
        said = [
            (
                rng.choice([o["label"], "a big " + o["label"] + "s", "thing"]),
                near(rng, o["bbox"], width, height),
            )
            for o in objects
            if rng.random() > 0.2
        ]
        whole = ", ".join(said_by(rng, family, phrase, [box], width, height) for phrase, box in said)
        answer = rng.choice(
            [whole, whole, whole, whole[: 2 * len(whole) // 3], "", "There is nothing.", "I see " + whole]
        )
        doc = {
            "id": "1",
            "image_id": "a",
            "width": width,
            "height": height,
            "objects": objects,
            "box_format": family,
        }
        scores = description.process_results(doc, [answer])
        read = [(phrase, box) for phrase, boxes in naive_said(family, answer, width, height) for box in boxes]
        pairs = naive_match([box for _, box in read], [o["bbox"] for o in objects])
        named = sum(objects[j]["label"] in read[i][0] for i, j, _ in pairs)
        cut += len(read) < len(said)
        expected = {"precision": (len(pairs), len(read)), "recall": (len(pairs), len(objects)), "phrase_precision": (named, len(read)),  # noqa: E501
                    "phrase_recall": (named, len(objects)), "mIoU": (sum(pair[2] for pair in pairs), len(objects))}  # fmt: skip  # noqa: E501
        for name, (total, count) in expected.items():
            assert scores[name]["n"] == count and scores[name]["score"] * count == pytest.approx(
                total, abs=1e-9
            ), (name, answer)
        open = any(
            answer.count(one) != answer.count(other) for one, other in ("[]", "{}", ("<box>", "</box>"))
        )
        assert scores["parse_failure"]["score"] == float(not read or open), answer
    assert cut > 50


def test_a_description_is_asked_for_as_in_the_method():
    doc = {"width": 100, "height": 80, "region": [10.0, 20.0, 60.0, 70.0], "box_format": "ferret"}
    assert (
        description.doc_to_text(doc)
        == "Describe the objects in the region [100, 250, 600, 875] with their bounding boxes."
    )
    assert "JSON" in description.doc_to_text({**doc, "box_format": "qwen2.5-vl"})
    assert (
        description.doc_to_text(doc, {"prompt": "What is in {region}?"}) == "What is in [100, 250, 600, 875]?"
    )


@pytest.mark.parametrize("height, matched", [(500, 1.0), (499, 0.0)])
def test_an_iou_of_exactly_a_half_is_a_match(height, matched):
    doc = {"id": "1", "image_id": "a", "width": 1000, "height": 1000, "box_format": "ferret",
           "objects": [{"label": "dog", "bbox": [0.0, 0.0, 1000.0, 1000.0]}]}  # fmt: skip
    scores = description.process_results(doc, [f"a dog [0, 0, 1000, {height}]"])
    names = ("precision", "recall", "phrase_precision", "phrase_recall")
    assert [scores[name]["score"] for name in names] == [matched] * 4 and scores["mIoU"][
        "score"
    ] == matched / 2
