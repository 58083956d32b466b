"""Numbers find their places on a drawing, whatever they are."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.report import charts

VALUES = st.floats(-1e12, 1e12)
LEFT, TOP, RIGHT, BOTTOM = charts.Chart("", [], [], []).frame


def places(chart):
    return [point for one in chart.series for point in [*one.line, *(dot[:2] for dot in one.dots)]]


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30))
def test_all_points_and_ticks_lie_within_the_frame(points):
    chart = charts.lines("loss", {"a": points})
    ticks = [(x, TOP) for x, _ in chart.x_ticks] + [(LEFT, y) for y, _ in chart.y_ticks]
    for x, y in places(chart) + ticks:
        assert LEFT - 0.1 <= x <= RIGHT + 0.1 and TOP - 0.1 <= y <= BOTTOM + 0.1
    assert len(places(chart)) >= len(points)


def test_larger_values_lie_higher_and_further_right():
    (one,) = charts.lines("", {"a": [(0, 0), (10, 5), (20, 10)]}).series
    assert one.line == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, TOP)]


@pytest.mark.parametrize(
    "low, high, texts",
    [
        (0, 1, ["0", "0.5", "1"]),
        (-0.2, 0.9, ["0", "0.5"]),
        (0, 66, ["0", "20", "40", "60"]),
        (-50, 3, ["-40", "-20", "0"]),
        (1e6, 4e6, ["1e+06", "2e+06", "3e+06", "4e+06"]),
    ],
)
def test_ticks_are_round(low, high, texts):
    assert [text for _, text in charts.round_numbers(low, high)] == texts


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300])
def test_what_has_no_place_is_left_out(value):
    chart = charts.lines("", {"a": [(0, 1.0), (1, value), (2, 3.0)]})
    assert [point[0] for point in places(chart)] == [LEFT, RIGHT]
    assert places(charts.histogram("", {"a": [value, 0.5, 0.7]}))


def test_a_long_line_is_thinned_and_keeps_its_ends():
    (one,) = charts.lines("", {"a": [(step, step) for step in range(100_001)]}).series
    assert (
        len(one.line) == charts.MOST_POINTS and one.line[0] == (LEFT, BOTTOM) and one.line[-1] == (RIGHT, TOP)
    )


def test_one_point_is_a_dot():
    (one,) = charts.lines("", {"a": [(3, 0.25)]}).series
    assert [text for *_, text in one.dots] == ["0.25"]


@pytest.mark.parametrize("other", [5e-324, -1e-310, 2.2250738585072014e-308, 0.0])
def test_values_that_are_as_good_as_one_have_an_axis(other):
    assert len(charts.histogram("S", {"a": [0.0, other], "b": [other]}).y_ticks) > 1
    assert charts.histogram("S", {"a": [other]}).x_ticks[0][1] == "-0.5"
    assert charts.lines("", {"a": [(0, 1.0), (1, 1.0 + 2e-16), (2, other)]}).y_ticks
    assert charts.lines("", {"a": [(0, 1.0), (1, 1.0 + 2e-16)]}).y_ticks


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.lists(st.floats(-5, 5), max_size=9))
def test_the_outline_of_a_histogram_holds_the_shares(column, other):
    """The area under the outline is one, whatever the group's size."""
    chart = charts.histogram("S", {"a": column, "b": other})
    outline, unit = chart.series[0].line, (RIGHT - LEFT) / charts.BINS
    steps = [(x2 - x1) / unit * (BOTTOM - y1) for (x1, y1), (x2, _) in itertools.pairwise(outline)]
    highest = max(BOTTOM - y for one in chart.series for _, y in one.line)
    assert highest == pytest.approx(BOTTOM - TOP, abs=0.1)
    full = {text: y for y, text in chart.y_ticks if float(text) > 0}
    text, y = max(full.items(), key=lambda item: float(item[0])) if full else ("1", TOP)
    assert sum(steps) / (BOTTOM - y) * float(text) == pytest.approx(1, abs=0.1)


def test_gains_have_a_dot_on_their_whisker():
    rows = [
        {"figure": "Acc@0.5", "gain": 0.01, "low": -0.02, "high": 0.04},
        {"figure": "Acc@0.9", "gain": 0.1, "low": 0.05, "high": 0.15},
    ]
    chart = charts.gains(rows)
    ((one, other), (low, high)) = chart.series[0].dots, chart.series[0].whiskers
    assert [text for _, text in chart.x_ticks] == ["Acc@0.5", "Acc@0.9"] and one[2] == "+1.00"
    assert one[0] == low[0] < other[0] and low[2] < one[1] < low[1] and high[2] < other[1] < high[1]
    assert low[2] < chart.zero < low[1] and chart.zero > high[1]
    assert charts.gains([]).series[0].dots == []
