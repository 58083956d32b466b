"""Which queries are judged together."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from spr_plugin.judging import by_pictures


def test_queries_are_grouped_by_all_their_pictures():
    shown = [("a",), ("b",), ("a",), ("a", "b"), ("b",), ("a", "b"), ("b", "a")]
    queries = [SimpleNamespace(paths=paths, id=id) for id, paths in enumerate(shown)]
    assert [[query.id for query in group] for group in by_pictures(queries)] == [[0, 2], [1, 4], [3, 5], [6]]
