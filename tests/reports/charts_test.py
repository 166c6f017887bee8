"""Curves stay in their box and keep what was measured."""

import itertools
import math

import hypothesis
from hypothesis import strategies as st

from contextjax.reports.charts import HEIGHT, MAX_POINTS, WIDTH, line_chart, linear_ticks, log_ticks, short, thin

numbers = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda x: round(x, 6))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(st.tuples(st.integers(0, 10**6), numbers), min_size=1, max_size=20), st.booleans())
def test_every_point_and_tick_is_inside(points, logarithmic):
    chart = line_chart("any", {"curve": sorted(points)}, y_label="y", logarithmic=logarithmic)
    for x, y in chart.lines[0].points:
        assert -0.01 <= x <= WIDTH and -0.01 <= y <= HEIGHT
    for ticks, size in ((chart.x_ticks, WIDTH), (chart.y_ticks, HEIGHT)):
        assert all(-0.01 <= tick.at <= size for tick in ticks)
    assert len(chart.y_ticks) <= 8


@hypothesis.given(numbers, numbers)
def test_linear_ticks_hold_the_range(a, b):
    low, high = sorted((a, b))
    ticks = linear_ticks(low, high)
    slack = 1e-6 * max(1.0, high - low)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8


@hypothesis.given(st.floats(1e-8, 1e8), st.floats(1.0, 1e8))
def test_log_ticks_hold_the_range(low, factor):
    ticks = log_ticks(low, low * factor)
    assert ticks[0] <= low * 1.001 and ticks[-1] >= low * factor * 0.999
    assert 2 <= len(ticks) <= 8


def test_a_long_curve_is_thinned_to_means():
    points = [(step, 1.0) for step in range(10_000)]
    thinned = thin(points)
    assert len(thinned) == MAX_POINTS
    assert all(math.isclose(y, 1.0) for _, y in thinned)
    assert thin(points[:7]) == points[:7]


def test_wide_ranges_may_be_logarithmic_and_points_that_are_not_finite_are_left_out():
    curves = {"big": [(1, 100.0), (2, math.nan)], "small": [(1, 0.1), (2, 0.2)]}
    chart = line_chart("loss", curves, y_label="loss", logarithmic=True)
    assert chart.y_label == "loss, log scale"
    assert [line.last for line in chart.lines] == ["100", "0.2"]
    assert len(chart.lines[0].points) == 1
    assert line_chart("loss", curves, y_label="loss").y_label == "loss"
    assert line_chart("nothing", {"a": [], "b": [(1, math.inf)]}, y_label="y") is None


def test_numbers_are_short():
    assert [short(x) for x in (0.0, 0.08, 3.3591, 42.0, 1400.0, 28_000.0, 1.96e-5)] == [
        "0", "0.08", "3.36", "42", "1,400", "28k", "2e-05",
    ]  # fmt: skip


def test_intervals_stand_over_sizes_on_a_logarithmic_axis():
    curves = {"off": [(500, 10.0), (2000, 30.0), (144_000, 40.0)], "on": [(500, 12.0)]}
    bars = {"off": [(500, -4.0, 24.0), (2000, 20.0, 60.0)]}
    chart = line_chart("R@1", curves, y_label="percent", x_label="triplets", intervals=bars)
    assert [tick.label for tick in chart.x_ticks] == ["500", "2,000", "144k"]
    off, on = chart.lines
    (_, low, high), (x, _, top) = off.intervals
    assert low == HEIGHT - 38  # no share is below zero
    assert x == off.points[1][0] and 0 <= top < high < low <= HEIGHT and on.intervals == ()
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(off.points)]
    assert math.isclose(gaps[0] / gaps[1], math.log(4) / math.log(72))
    alone = line_chart("R@1", {"on": curves["on"]}, y_label="percent", intervals={})
    assert all(0 <= x <= WIDTH for x, _ in alone.lines[0].points)
