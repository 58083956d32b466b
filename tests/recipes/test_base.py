"""Records of queries."""

import json

from spr_plugin.data.pictures import Picture
from spr_plugin.recipes.base import Query


def test_a_query_comes_back_from_its_record():
    pictures = (Picture("a", "a.png", 60, 40), Picture("b", "b/é.png", 1, 2))
    query = Query("q", pictures, "Which is larger?", ["the first", [1, 2.5]], "larger", 7)
    assert Query.from_record(json.loads(json.dumps(query.to_record()))) == query
    assert query.sources == ("a.png", "b/é.png")


def test_a_log_s_own_additions_are_passed_over():
    query = Query("q", (Picture("a", "a.png", 60, 40),), "What?", None, "names", 1)
    assert Query.from_record({**query.to_record(), "recipe": "names"}) == query
