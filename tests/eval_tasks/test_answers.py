"""What all protocols do with an answer."""

import json

import pytest

from spr_plugin.eval_tasks import captions, classification, description, phrases, rec, short_answers


@pytest.mark.parametrize("protocol", [rec, phrases, classification, captions, description, short_answers])
@pytest.mark.parametrize(
    "results",
    [
        [],
        [None],
        [""],
        [3],
        # Deeper than Python recurses.
        ["[" * 10**4],
        ["no" + " a," * 3_000],
        ["<box>" * 2_000],
        ['{"bbox_2d": [' * 2_000],
    ],
)
def test_hostile_results_never_raise_and_count(protocol, results):
    box = [10.0, 10.0, 50.0, 50.0]
    doc = {"id": "1", "image_id": "a", "width": 100, "height": 80, "expression": "x", "bbox": box, "point": [5.0, 5.0], "name": "cat", "synonyms": [],  # noqa: E501
           "negative": "dog", "references": ["a cat"], "caption": "c", "phrases": [{"id": "1_0", "phrase": "a cat", "boxes": [box]}],  # noqa: E501
           "objects": [{"label": "cat", "bbox": box}], "question": "Is there a cat?", "answer": "No.", "box_format": "qwen2.5-vl"}  # fmt: skip  # noqa: E501
    for form in ("ferret", "qwen-vl", "qwen2.5-vl"):
        scores = protocol.process_results({**doc, "box_format": form}, results)
        assert json.dumps(scores)
        if "parse_failure" in scores:
            assert scores["parse_failure"]["score"] == 1.0
