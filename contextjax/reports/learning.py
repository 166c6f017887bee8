"""A run's learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contextjax.reports import charts


def learning_charts(
    lines: Sequence[Mapping[str, Any]], weights: Mapping[str, float], *, metric: str, ending: str
) -> tuple[charts.Chart, ...]:
    """Loss terms, learning rate, and what was evaluated along the way.

    Args:
      lines: the run's metrics, one mapping a line: step, name: value.
      weights: the loss terms among those names, and their weights.
      metric: what is evaluated, in words.
      ending: of the names of the metrics to draw; they are "SPLIT/NAME".
    """
    curve = lambda name: [(line["step"], line[name]) for line in lines if name in line]
    evaluated = dict.fromkeys(name for line in lines for name in line if "/" in name and name.endswith(ending))
    losses = {name if weight == 1 else f"{name} (weight {weight:g})": curve(name) for name, weight in weights.items()}
    drawn = (
        charts.line_chart("Loss and its terms", losses, y_label="loss", logarithmic=True),
        charts.line_chart(f"{metric} during training", {name: curve(name) for name in evaluated}, y_label="percent"),
        charts.line_chart("Learning rate", {"learning rate": curve("learning_rate")}, y_label="rate"),
    )
    return tuple(chart for chart in drawn if chart)
