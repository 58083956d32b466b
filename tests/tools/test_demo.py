"""The demo's table; `make demo` itself is run by .ci/run."""

import pytest

from spr_plugin.tools.demo import table, verdict


def test_the_table_is_in_percent_with_signs():
    row = {"figure": "Acc@0.9", "a": 0.391, "b": 0.4375, "gain": 0.0465, "low": -0.0102, "high": 0.1}
    assert table([row]).splitlines()[1:] == [
        "                   base     SPR    gain   95 % interval",
        "Acc@0.9            39.1    43.8    +4.7   -1.0 … +10.0",
    ]


def row(figure, low, high):
    return {"figure": figure, "low": low, "high": high}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("Acc@0.5", -0.01, 0.02)], "No figure changes beyond chance."),
        ([row("Acc@0.5", 0.0, 0.02)], "No figure changes beyond chance."),
        (
            [row("Acc@0.5", -0.01, 0.02), row("Acc@0.8", 0.001, 0.02), row("Acc@0.9", 0.03, 0.1)],
            "Beyond chance, SPR gains Acc@0.8, Acc@0.9, and no figure loses.",
        ),
        ([row("mIoU", -0.02, -0.01)], "Beyond chance, SPR loses mIoU."),
        ([row("parse_failure", 0.01, 0.02)], "Beyond chance, SPR loses parse_failure."),
        (
            [row("Acc@0.5", -0.02, -0.01), row("Acc@0.9", 0.03, 0.1)],
            "Beyond chance, SPR gains Acc@0.9 and loses Acc@0.5.",
        ),
    ],
)
def test_the_verdict_follows_from_the_intervals(rows, said):
    assert verdict(rows) == said
