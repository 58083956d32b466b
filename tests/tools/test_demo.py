"""The demo's table; `make demo` itself is run by .ci/run."""

from spr_plugin.tools.demo import table


def test_the_table_is_in_percent_with_signs():
    row = {"figure": "Acc@0.9", "a": 0.391, "b": 0.4375, "gain": 0.0465, "low": -0.0102, "high": 0.1}
    assert table([row]).splitlines()[1:] == [
        "                   base     SPR    gain   95 % interval",
        "Acc@0.9            39.1    43.8    +4.7   -1.0 … +10.0",
    ]
