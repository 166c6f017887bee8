"""The report of composed queries (ConText-CIR): what it shows beside what all reports do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextjax import metrics
from contextjax.evaluation import Evaluation, Pictures
from contextjax.reports.cards import Cards
from contextjax.reports.maps import PhrasesOf
from contextjax.reports.report import Error, Report
from contextjax.reports.sections import Picked
from contextjax.system import System

BASELINES = {  # the queries of a system's own towers
    "image": "picture alone",
    "text": "text alone",
    "sum": "picture + text",
}


@dataclasses.dataclass(frozen=True)
class ComposedReport(Report):
    """All that the page of composed queries shows."""

    n_gallery: int
    excludes_reference: bool
    average: tuple[str, ...]  # the metrics whose mean is "Avg"
    errors: tuple[float | None, ...]  # standard error of the run's metrics

    @property
    def headline(self) -> tuple[tuple[str, float | None, Error], ...]:
        """The run's metric at each first cut-off, and the average: (name, percent, standard error)."""
        first = {name.partition("@")[0]: name for name in reversed(self.columns)}.values()
        found = zip(self.columns, self.rows[0].values, self.errors, strict=True)
        return tuple(metric for metric in found if metric[0] in first)

    @property
    def n_ranked(self) -> int:
        """How many pictures a query ranks."""
        return self.n_gallery - self.excludes_reference

    @property
    def has_subset(self) -> bool:
        """Whether queries are ranked in groups too."""
        return any(column.startswith("Rs@") for column in self.columns)

    @property
    def has_precision(self) -> bool:
        """Whether several pictures may be right, and it counts how early all of them are found."""
        return any(column.startswith("mAP@") for column in self.columns)

    @property
    def has_maps(self) -> bool:
        """Whether any card shows what its fusion read."""
        return any(card.phrases for section in self.sections for card in section.cards)


class ComposedView:
    """How an evaluation of composed queries is shown."""

    tracked: Mapping[str, str] = {"metric": "Recall", "ending": "@1"}  # see learning_charts

    def __init__(
        self,
        system: System,
        evaluation: Evaluation,
        pictures: Pictures,
        *,
        phrases_of: PhrasesOf | None,
        captions: Sequence[str],
    ):
        self.evaluation = evaluation
        self.cards = Cards(system, evaluation, pictures, phrases_of=phrases_of, captions=captions)
        self.how = f"query: {system.query}"

    def baseline(self, name: str) -> tuple[str, str]:
        """What a baseline is called, and a note."""
        return BASELINES.get(name, name), "same towers"

    def report(self, shared: Mapping[str, Any]) -> ComposedReport:
        """The report, of the fields that all reports share."""
        protocol, columns = self.evaluation.protocol, shared["columns"]
        own = {
            "protocol": protocol.name,
            "n_gallery": self.evaluation.n_gallery,
            "excludes_reference": protocol.excludes_reference,
            "average": protocol.average if "Avg" in columns else (),
            "errors": tuple(_error(self.evaluation, column) for column in columns),
        }
        return ComposedReport(**{**shared, **own})

    def picked(self, extremes: int) -> tuple[Picked, ...]:
        """The best and the worst cases."""
        evaluation = self.evaluation
        count = len(evaluation.records)
        lead = evaluation.scores[:, 0] - evaluation.scores[:, 1] if evaluation.scores.shape[1] > 1 else np.zeros(count)
        right = np.flatnonzero(evaluation.ranks == 0)
        best = right[np.argsort(-lead[right], kind="stable")][:extremes]
        worst = np.argsort(-evaluation.ranks, kind="stable")[:extremes]
        worst = worst[evaluation.ranks[worst] > 0]
        high = "The target is first, by the widest lead over the second."
        low = "The target is ranked furthest down."
        return (
            Picked("Best cases", high if len(best) else "No query has its target first.", best),
            Picked("Worst cases", low if len(worst) else "Every query has its target first.", worst),
        )


def _error(evaluation: Evaluation, column: str) -> float | None:
    """The standard error of a recall; means of recalls have none here."""
    kind, _, k = column.partition("@")
    ranks = {"R": evaluation.ranks, "Rs": evaluation.subset_ranks}.get(kind)
    return None if ranks is None else metrics.standard_error(ranks, int(k))
