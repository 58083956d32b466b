"""The study's plugin that repairs nothing and filters as repair does, on regions of the tiny world."""

import pytest

from spr_plugin.boxes import Box
from tests.runs.finished import FORM, moved

from .plugins import judged, loaded, regions

pytest.importorskip("torch")


def with_wrong(query, count):
    """All objects, their boxes a little off, those of the first `count` in a corner, too small to match."""
    rows = [(one.label, moved(one.box)) for one in query.truth]
    lost = Box(0, 0, 3, 3, query.truth[0].box.space)
    return FORM.render([(label, lost if place < count else box) for place, (label, box) in enumerate(rows)])


@pytest.mark.parametrize("repair", ["coordinates", "item"])
def test_answers_stay_and_what_repair_throws_out_is_not_chosen(tiny_world, repair):
    queries = regions(tiny_world(spr=6), 4)
    texts = [[with_wrong(query, count) for count in (0, 1, 3)] + ["a red ring."] for query in queries]
    refined = judged(queries, texts, spr_repair=repair)
    with loaded("unrepaired"):
        found = judged(queries, texts, spr_repair=repair)
    seen = set()
    for before, after in zip(refined, found):
        for one, other in zip(before["candidates"], after["candidates"]):
            assert other["repaired"] == other["text"] and one["not_choosable"] == other["not_choosable"]
            assert other["repaired_score"] == other["score"] == one["score"]
            if other["score"] is not None:
                assert other["repaired_terms"]["kept"] == one["repaired_terms"]["kept"]
                assert one["repaired"] != one["text"]
            seen.add(other["not_choosable"])
    assert seen == {None, "too_few_boxes_kept", "no_box"}


def test_another_plugin_s_repair_is_left_alone():
    with loaded("unrepaired"), pytest.raises(Exception, match="--spr_repair mine: no plugin has it"):
        judged([], [], spr_repair="mine")
