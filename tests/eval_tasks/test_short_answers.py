"""Answers of a word or two."""

import pytest

from spr_plugin.eval_tasks import metrics, short_answers


def test_short_answers_by_hand():
    """Three questions whose answer is No, one said Yes; of five in all, three are right."""
    said = [("No.", "No."), ("No.", "yes"), ("No.", "a red ring"), ("Yes.", "Yes"), ("red.", "Red")]
    docs = [
        {"id": str(n), "image_id": str(n), "question": "q", "answer": answer}
        for n, (answer, _) in enumerate(said)
    ]
    results = [short_answers.process_results(doc, [text]) for doc, (_, text) in zip(docs, said)]
    assert metrics.mean(scores["accuracy"] for scores in results) == 3 / 5
    assert metrics.mean(scores["false_yes"] for scores in results) == pytest.approx(1 / 3)
    rows = {
        row["figure"]: row["value"]
        for row in metrics.ratio_details([scores["details"] for scores in results])
    }
    assert rows == {"accuracy": 3 / 5, "false_yes": pytest.approx(1 / 3)}
