"""What a report of either system shows, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from contextjax.reports import charts

Interval = tuple[float, float]  # percent
Error = float | Interval | None  # a standard error, or a 95 % interval, in percent


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: values in percent, None where there is none."""

    name: str
    values: tuple[float | None, ...]
    note: str = ""
    n_queries: int = 0
    main: bool = False
    interval: Interval | None = None  # that holds the first value with 95 % confidence


@dataclasses.dataclass(frozen=True)
class Section:
    """Queries under one heading."""

    title: str
    intro: str
    cards: tuple[Any, ...]  # those that the report's template draws


@dataclasses.dataclass(frozen=True)
class Report:
    """What pages of all systems show; the templates add words, not numbers."""

    title: str
    protocol: str
    split: str
    n_queries: int
    columns: tuple[str, ...]  # names of the metrics
    rows: tuple[Row, ...]  # the run, then its baselines
    kinds: tuple[Row, ...]
    charts: tuple[charts.Chart, ...]
    sections: tuple[Section, ...]
    facts: Mapping[str, str]  # how the page came about: name -> value
    credit: str  # of the pictures

    @property
    def headline(self) -> tuple[tuple[str, float | None, Error], ...]:
        """The run's metrics that are shown large: (name, percent, how sure)."""
        run = self.rows[0]
        return tuple((name, value, run.interval) for name, value in zip(self.columns, run.values, strict=True))

    @property
    def has_intervals(self) -> bool:
        """Whether the rows tell how sure they are."""
        return any(row.interval for row in self.rows)
