"""What is a scene graph, and what is none."""

import pytest

from spr_plugin.recipes.spatial_thinker.graph import Triple, graph_of, name_of, record_of

GOOD = {
    "objects": [
        {"id": "red circle.1", "bbox": [1, 2, 3.5, 4]},
        {"id": "Fire-hydrant.12", "bbox": [0, 0, 9, 9]},
    ],
    "relationships": [{"subject": "red circle.1", "predicate": "on", "object": "Fire-hydrant.12"}],
}


def test_a_graph_is_read_and_written_again():
    graph = graph_of(GOOD)
    assert graph.names == ["red circle", "fire hydrant"]
    assert graph.triples == (Triple("red circle.1", "on", "Fire-hydrant.12"),)
    assert record_of(graph.ids, graph.boxes.tolist(), graph.triples) == GOOD


def test_lists_that_are_missing_are_empty():
    assert graph_of({"relationships": []}).boxes.shape == (0, 4) and not graph_of({"objects": []}).triples


def of(id="cat.1", bbox=(1, 2, 3, 4), **more):
    return {"objects": [{"id": id, "bbox": list(bbox), **more}], "relationships": []}


def related(**changes):
    return {**of(), "relationships": [{"subject": "cat.1", "predicate": "on", "object": "cat.1", **changes}]}


BAD = {
    "no table": [],
    "an empty one": {},
    "a number": 7,
    "objects that are no list": {"objects": {}},
    "an object that is no table": {"objects": ["cat.1"]},
    "one more key": of(color="red"),
    "no bbox": {"objects": [{"id": "cat.1"}]},
    "no number in an id": of(id="cat"),
    "no name in an id": of(id=".1"),
    "brackets in an id": of(id="cat [1].1"),
    "an id that is a number": of(id=1),
    "three numbers": of(bbox=(1, 2, 3)),
    "a number as text": of(bbox=(1, 2, 3, "4")),
    "not a number": of(bbox=(1, 2, 3, float("nan"))),
    "a number that no float holds": of(bbox=(1, 2, 3, 10**400)),
    "an id twice": {"objects": of()["objects"] * 2},
    "a relation without a word": related(predicate=None),
    "a relation of no id": related(subject="cat"),
    "a relation that is no table": {**of(), "relationships": [None]},
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_graph(kind):
    with pytest.raises(ValueError):
        graph_of(BAD[kind])


@pytest.mark.parametrize(
    ("id", "name"), [("Red_circle.1", "red circle"), ("a.b.2", "a.b"), ("T-shirt  blue.30", "t shirt blue")]
)
def test_names_are_compared_plain(id, name):
    assert name_of(id) == name
