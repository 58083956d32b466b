"""Seconds and memory of a piece of work."""

import time

import pytest

pytest.importorskip("torch")
from spr_plugin.training.cost import Cost, measured


def test_what_is_done_inside_is_what_counts():
    with measured() as cost:
        assert cost == Cost(0.0, 0)
        time.sleep(0.05)
        block = bytearray(b"x") * 2**26  # every page of it is written
    time.sleep(0.05)
    assert 0.05 <= cost.seconds < 5
    assert cost.peak > len(block) and cost.peak < 2**40, "bytes, not KiB"


def test_a_cost_in_words():
    assert str(Cost(1.256, 3 * 2**29)) == "1.26 s, peak 1.50 GiB of the process"
