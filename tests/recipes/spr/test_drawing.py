"""What is shown of a region."""

from spr_plugin.recipes.base import Judged, unjudged
from spr_plugin.recipes.spr.drawing import drawn, facets_of

from .by_hand import TEXTS, Finder, judge, query, recipe


def test_what_is_drawn_are_region_truth_and_written_boxes():
    text = "a dog [0.0, 0.0, 0.2, 0.18] and a cup [0.8, 0.8, 0.9, 0.9]"
    ready = recipe(detector=Finder())
    judged = judge(ready, [text, TEXTS[1]])
    (before, after), _ = ready.draw(query(), judged)
    own = query().truth
    assert [(mark.kind, mark.xyxy, mark.name) for mark in before[:4]] == [
        ("region", (0, 0, 100, 100), ""),
        *(("truth", one.box.xyxy, one.label) for one in own),
        *(("detector", tuple(box), "") for box in judged.truth[len(own) :]),
    ]
    assert len(judged.truth) == len(own) + 1
    assert [mark.kind for mark in before[4:]] == ["written"] * 2 and [mark.kind for mark in after[4:]] == [
        "written"
    ]


def test_a_written_box_says_where_its_name_and_its_coordinates_stand():
    text = "two dogs [0.0, 0.0, 0.2, 0.18] and [0.3, 0.3, 0.4, 0.4], a cup [0.8, 0.8, 0.9, 0.9]"
    (written, _), *_ = recipe().draw(query(), Judged(None, (unjudged(text),)))
    marks = [mark for mark in written if mark.kind == "written"]
    spoken = [[text[slice(*span)] for span in mark.spans] for mark in marks]
    assert [mark.name for mark in marks] == ["two dogs", "two dogs", "cup"]
    assert [name for name, _ in spoken] == ["two dogs", "two dogs", "cup"]
    assert [numbers.strip("[]") for _, numbers in spoken] == [
        "0.0, 0.0, 0.2, 0.18", "0.3, 0.3, 0.4, 0.4", "0.8, 0.8, 0.9, 0.9"
    ]  # fmt: skip


def test_without_a_box_format_region_and_truth_are_drawn_alone():
    """In a run that is opened where its plugin is missing."""
    ((before, after),) = drawn(None, query(), Judged(None, (unjudged(TEXTS[0]),)))
    assert [mark.kind for mark in before] == ["region", "truth", "truth"] and after == before


def test_facets_are_names_and_sizes_of_the_objects():
    asked = query(boxes=((0, 0, 20, 20), (20, 20, 60, 60), (0, 0, 99, 99)))
    assert facets_of(asked) == {
        "category": ["thing 0", "thing 1", "thing 2"],
        "size": ["small", "medium", "large"],
    }
