"""Numbers as charts: pure functions from plain data to places on a drawing, which ``templates/charts.html``
turns into SVG.

A chart is lines, dots or whiskers over two axes. Nothing here knows what is drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Point = tuple[float, float]  # in the chart's values, or in pixels of the drawing
WIDTH, HEIGHT = 340, 190  # of a drawing
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 28  # margins
MOST_POINTS = 300  # of one line; more cannot be told apart, and a page has a size
BINS = 24
LARGEST = 1e15  # of a value that has a place on an axis; a folder may hold anything
LEAST = 1e-200  # what is smaller is 0 to an axis: below, floats lose their digits


@dataclass(frozen=True)
class Series:
    """One line in pixels of the drawing.

    Attributes:
        line: the points that are joined.
        dots: points with a text each, shown on their own.
        whiskers: (x, y of the low end, y of the high end).
    """

    name: str
    line: Sequence[Point] = ()
    dots: Sequence[tuple[float, float, str]] = ()
    whiskers: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """A drawing: its series and the ticks of both axes as (place, text)."""

    title: str
    series: Sequence[Series]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    zero: float | None = None  # where y is 0, if that is on the drawing
    width: int = WIDTH
    height: int = HEIGHT
    frame: tuple[int, int, int, int] = field(default=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM))


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on the pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> Axis:
        """An axis that holds all values; one value alone gets some room."""
        low, high = _bounds(values)
        return cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Three to six round numbers."""
        return [(self(value), text) for value, text in round_numbers(self.low, self.high)]


def _bounds(values: Iterable[float]) -> tuple[float, float]:
    """Of an axis that shows these values; some room where they are all one, or as good as one: between two
    neighbours among floats there is no place for ticks."""
    values = list(values) or [0.0]
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if high - low > max(1e-9 * largest, LEAST):
        return low, high
    room = largest / 2 if largest > LEAST else 0.5
    return low - room, high + room


def round_numbers(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers between two, with their texts."""
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    values = [number * step + 0.0 for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:.6g}") for value in values]


def lines(title: str, series: Mapping[str, Sequence[Point]]) -> Chart:
    """Lines over two axes of numbers."""
    thinned = {name: _thinned([*filter(_has_place, points)]) for name, points in series.items()}
    points = [point for line in thinned.values() for point in line]
    x = Axis.over((point[0] for point in points), LEFT, WIDTH - RIGHT)
    y = Axis.over((point[1] for point in points), HEIGHT - BOTTOM, TOP)
    drawn = []
    for name, line in thinned.items():
        placed = [(x(one), y(other)) for one, other in line]
        # A line of one point is none.
        dots = [(*placed[0], f"{line[0][1]:.4g}")] if len(line) == 1 else ()
        drawn.append(Series(name, placed, dots))
    return Chart(title, drawn, x.ticks(), y.ticks(), _zero(y))


def _has_place(point: Point) -> bool:
    return all(abs(value) < LARGEST for value in point)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """As many as a drawing can show, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    kept = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
    return [points[index] for index in kept]


def histogram(title: str, values: Mapping[str, Sequence[float]]) -> Chart:
    """How often values are how large: outlines over one axis, in shares, so that groups of different sizes
    can be compared.
    """
    kept = {name: np.array([one for one in column if abs(one) < LARGEST]) for name, column in values.items()}
    low, high = _bounds(
        end for column in kept.values() if len(column) for end in (column.min(), column.max())
    )
    edges = np.linspace(low, high, BINS + 1)
    outlines = {}
    for name, column in kept.items():
        shares = np.histogram(column, edges)[0] / max(1, len(column))
        corners = [(edge, share) for pair, share in zip(itertools.pairwise(edges), shares) for edge in pair]
        outlines[name] = [(low, 0.0), *((float(x), float(y)) for x, y in corners), (high, 0.0)]
    return lines(title, outlines)


def gains(rows: Sequence[Mapping]) -> Chart:
    """The gain of each row with its interval, in points."""
    points = [[100 * row[key] for key in ("gain", "low", "high")] for row in rows]
    y = Axis.over([0.0, *(value for row in points for value in row)], HEIGHT - BOTTOM, TOP)
    room = (WIDTH - RIGHT - LEFT) / max(1, len(rows))
    centres = [round(LEFT + room * (number + 0.5), 1) for number in range(len(rows))]
    dots = [(x, y(gain), f"{gain:+.2f}") for x, (gain, _, _) in zip(centres, points)]
    whiskers = [(x, y(low), y(high)) for x, (_, low, high) in zip(centres, points)]
    names = [(x, row["figure"]) for x, row in zip(centres, rows)]
    return Chart("gain in points", [Series("gain", (), dots, whiskers)], names, y.ticks(), _zero(y))


def _zero(y: Axis) -> float | None:
    return y(0.0) if y.low <= 0 <= y.high else None
