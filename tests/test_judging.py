"""Which queries are judged together."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from spr_plugin.errors import UserError
from spr_plugin.judging import by_pictures, refuse_unreadable


def test_queries_are_grouped_by_all_their_pictures():
    shown = [("a",), ("b",), ("a",), ("a", "b"), ("b",), ("a", "b"), ("b", "a")]
    queries = [SimpleNamespace(sources=paths, id=id) for id, paths in enumerate(shown)]
    assert [[query.id for query in group] for group in by_pictures(queries)] == [[0, 2], [1, 4], [3, 5], [6]]


def records(*rows):
    """Of scores; an answer is its (reason, not_choosable)."""
    return [{"candidates": [{"reason": one, "not_choosable": two} for one, two in row]} for row in rows]


def test_more_than_half_of_the_answers_unreadable_is_another_box_text():
    """Whether they were scored as vague ones or had not even words."""
    fine, vague, unread, silent = (None, None), (None, "no_box"), (None, "unparsable"), ("unparsable",) * 2
    refuse_unreadable(records([fine, unread], [vague, silent]), "spr/scores")
    refuse_unreadable(records([vague, vague]), "spr/scores")
    refuse_unreadable([], "spr/scores")
    with pytest.raises(
        UserError, match="^3 of 5 answers cannot be read.*--spr_box_format.*spr/scores$"
    ) as refused:
        refuse_unreadable(records([fine, unread], [vague, silent, unread]), "spr/scores")
    assert "\n" not in str(refused.value)
