"""Ids of records."""

from spr_plugin.ids import digest


def test_digest_is_the_same_everywhere():
    assert digest(["a", 1]) == "2657442bb4a48d62"
