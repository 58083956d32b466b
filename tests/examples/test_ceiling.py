"""The study's plugin that makes the whole truth chosen, on regions of the tiny world."""

import pytest

from spr_plugin.boxes import iou_matrix
from spr_plugin.pairing import best_over_worst, make_pair
from tests.runs.finished import FORM, answers

from .plugins import judged, loaded, regions

pytest.importorskip("torch")


def test_chosen_is_all_of_the_region_in_order_and_rejected_as_usual(tiny_world):
    queries = regions(tiny_world(spr=6), 4)
    texts = [answers(number, query) for number, query in enumerate(queries)]
    usual = judged(queries, texts)
    with loaded("ceiling"):
        found = judged(queries, texts)
    pairs = [make_pair(query, "?", one["candidates"], best_over_worst) for query, one in zip(queries, found)]
    assert pairs.pop() == "too_few_valid"  # the last region has no valid answer
    for query, pair, before, after in zip(queries, pairs, usual, found):
        scores = {row["id"]: row["score"] for row in before["candidates"]}
        assert {row["id"]: row["score"] for row in after["candidates"]} == pytest.approx(scores, abs=1e-6)
        valid = {id: score for id, score in scores.items() if score is not None}
        assert pair.rejected_candidate == min(valid, key=valid.__getitem__)
        truth = sorted(query.truth, key=lambda one: one.box.x1)
        said = FORM.parse(pair.chosen, query.image.width, query.image.height).mentions
        assert [one.phrase for one in said] == [one.label for one in truth]
        overlaps = iou_matrix([one.boxes[0].pixels() for one in said], [one.box.pixels() for one in truth])
        assert overlaps.diagonal().min() > 0.8  # two decimals
        assert pair.chosen.startswith(("a ", "an ")) and pair.chosen.endswith("].")
        assert all(row["not_choosable"] is None for row in after["candidates"] if row["score"] is not None)
