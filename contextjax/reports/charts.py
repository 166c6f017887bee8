"""Line charts as plain geometry: the page's template draws them as inline SVG, coloured by its style sheet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextjax.evaluation.probes import TEXT_PROBE

WIDTH, HEIGHT = 380, 230  # about the width of a phone, so that letters keep their size there
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 38  # margins
MAX_POINTS = 200
MAX_LINES = 6  # colours and dashes that the style sheet knows
RATIO = "grad_norm/consistency_to_contrastive"  # of the objective's diagnosis
MARKED = 12  # a line of at most so many points shows each as a dot

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Tick:
    """A label and its place in pixels along the axis."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: pixels of its points, and its newest value for the legend."""

    name: str
    points: tuple[tuple[float, float], ...]
    last: str
    intervals: tuple[tuple[float, float, float], ...] = ()  # pixels: across, and the ends of an interval

    @property
    def path(self) -> str:
        """The `points` attribute of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def marked(self) -> bool:
        """Returns whether each point is drawn."""
        return len(self.points) <= MARKED


@dataclasses.dataclass(frozen=True)
class Chart:
    """A laid-out line chart, pixels from the top left corner."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM

    @property
    def summary(self) -> str:
        """The chart in words, for readers who can't see it."""
        return f"{self.title}: " + ", ".join(f"{line.name} ends at {line.last}" for line in self.lines)


def line_chart(
    title: str, curves: Mapping[str, Points], *, y_label: str, x_label: str = "step", logarithmic: bool = False,
    intervals: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> Chart | None:  # fmt: skip
    """Lays out curves (name -> [(x, y)]); returns None where there is no finite point.

    The y axis starts at zero; `logarithmic` allows a logarithmic one where values span more than a factor of twenty.
    With `intervals` (name -> [(x, low, high)]) the x axis is that of sizes: logarithmic, with a tick at each.
    """
    finite = {name: thin([p for p in points if math.isfinite(p[1])]) for name, points in curves.items()}
    drawn = dict([(name, points) for name, points in finite.items() if points][:MAX_LINES])
    if not drawn:
        return None
    xs, ys = (np.concatenate([[p[axis] for p in points] for points in drawn.values()]) for axis in (0, 1))
    bounds = [y for name in drawn for _, *ends in (intervals or {}).get(name, ()) for y in ends if math.isfinite(y)]
    ys = np.concatenate([ys, np.clip(bounds, 0, None)])
    logarithmic = logarithmic and ys.min() > 0 and ys.max() / ys.min() > 20
    y_values = log_ticks(ys.min(), ys.max()) if logarithmic else linear_ticks(min(0.0, ys.min()), ys.max())
    x_values = linear_ticks(0.0, xs.max(), inside=True) if intervals is None else sorted({*xs.tolist()})
    scale = math.log10 if logarithmic else float
    low, high = scale(y_values[0]), scale(y_values[-1])

    def place_x(x: float) -> float:
        if intervals is not None:
            span = math.log(xs.max() / xs.min()) or 1.0
            return LEFT + (WIDTH - LEFT - RIGHT) * (0.06 + 0.88 * math.log(x / xs.min()) / span)
        return LEFT + (WIDTH - LEFT - RIGHT) * x / (xs.max() or 1.0)

    def place_y(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(y) - low) / (high - low)

    return Chart(
        title=title,
        x_label=x_label,
        y_label=y_label + (", log scale" if logarithmic else ""),
        x_ticks=tuple(Tick(place_x(x), short(x)) for x in x_values),
        y_ticks=tuple(Tick(place_y(y), short(y)) for y in y_values),
        lines=tuple(
            Line(
                name,
                tuple((place_x(x) + beside, place_y(y)) for x, y in points),
                short(finite_last(curves[name])),
                tuple(
                    (place_x(x) + beside, place_y(max(least, 0.0)), place_y(most))
                    for x, least, most in (intervals or {}).get(name, ())
                ),
            )
            for (name, points), beside in zip(
                drawn.items(), _spread(len(drawn), apart=intervals is not None), strict=True
            )
        ),
    )


def _spread(count: int, *, apart: bool) -> list[float]:
    """Returns pixels by which lines are moved aside, so that no interval covers another; 0 unless `apart`."""
    return [4.0 * (line - (count - 1) / 2) if apart else 0.0 for line in range(count)]


def thin(points: Points) -> Points:
    """Reduces a curve to at most MAX_POINTS means of neighbours, so that a long run stays a small page."""
    if len(points) <= MAX_POINTS:
        return points
    return [tuple(np.mean(part, axis=0)) for part in np.array_split(np.asarray(points, float), MAX_POINTS)]


def finite_last(points: Points) -> float:
    """Returns the newest finite value."""
    return [y for _, y in points if math.isfinite(y)][-1]


def linear_ticks(low: float, high: float, *, inside: bool = False) -> list[float]:
    """Returns three to six round numbers that enclose [low, high]; with `inside`, only those within it."""
    span = (high - low) or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if span / (unit * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), (math.floor if inside else math.ceil)((low + span) / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns at most eight round numbers that enclose [low, high]: 1, 2, 5 of each power of ten, or some powers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [10.0**power * factor for power in range(first, last + 1) for factor in (1, 2, 5)]
    below = max(index for index, tick in enumerate(fine) if tick <= low * (1 + 1e-9))
    above = min(index for index, tick in enumerate(fine) if tick >= high * (1 - 1e-9))
    if above - below < 6:
        return fine[below : max(above, below + 1) + 1]
    stride = math.ceil((last - first) / 6)
    return [10.0**power for power in range(first, last + stride, stride)]


def short(value: float) -> str:
    """Formats a number in few letters: 0.08, 3.36, 42, 1,400, 28k, 2e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    if abs(value) >= 10_000:
        return f"{value / 1000:,.4g}k"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def learning_charts(
    lines: Sequence[Mapping[str, Any]], weights: Mapping[str, float], tracked: tuple[str, str]
) -> tuple[Chart, ...]:
    """Draws a run's loss terms, its learning rate, and the metrics evaluated along the way.

    Args:
      lines: the run's metrics log, one mapping a line: step, name: value.
      weights: the loss terms among those names, and their weights.
      tracked: the evaluated metric in words, and the ending of the names to draw, which are "SPLIT/NAME".
    """
    metric, ending = tracked
    curve = lambda name: [(line["step"], line[name]) for line in lines if name in line]
    evaluated = dict.fromkeys(name for line in lines for name in line if "/" in name and name.endswith(ending))
    losses = {name if weight == 1 else f"{name} (weight {weight:g})": curve(name) for name, weight in weights.items()}
    pointing = {
        f"{name.removesuffix('grounding/pointing')}{how}": curve(name.replace("/pointing", f"/{prefix}pointing"))
        for name in dict.fromkeys(name for line in lines for name in line if name.endswith("/grounding/pointing"))
        for how, prefix in (("in its text", ""), ("alone", "alone_"))
    }
    drawn = (
        line_chart("Loss and its terms", losses, y_label="loss", logarithmic=True),
        line_chart(f"{metric} during training", {name: curve(name) for name in evaluated}, y_label="percent"),
        line_chart("Gradient of consistency beside the contrastive one", {"ratio": curve(RATIO)}, y_label="ratio"),
        line_chart("Maps of phrases that hit their thing", pointing, y_label="percent"),
        line_chart("Learning rate", {"learning rate": curve("learning_rate")}, y_label="rate"),
    )
    return tuple(chart for chart in drawn if chart)


def probe_charts(probes: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Draws accuracy against the strength of each probe of pictures, and of distractor texts, see evaluation.probes."""
    curves = {name: [(row["strength"], row["accuracy"]) for row in rows] for name, rows in probes.items()
              if isinstance(rows, list)}  # fmt: skip
    texts = {name: curves.pop(name) for name in (TEXT_PROBE,) if name in curves}
    drawn = (
        line_chart("Changed pictures", curves, x_label="share that is changed", y_label="accuracy, percent"),
        line_chart("Texts of other sets after a text", texts, x_label="texts", y_label="accuracy, percent"),
    )
    return tuple(chart for chart in drawn if chart)
