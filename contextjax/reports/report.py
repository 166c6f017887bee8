"""What a report shows, as plain values, and how it comes from a system and its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextjax import metrics
from contextjax.evaluation import Evaluation, Pictures
from contextjax.reports import charts
from contextjax.reports.cards import Card, Cards
from contextjax.reports.maps import PhrasesOf
from contextjax.system import System

BASELINES = {  # the queries of a system's own towers
    "image": "picture alone",
    "text": "text alone",
    "sum": "picture + text",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: values in percent, None where there is none."""

    name: str
    values: tuple[float | None, ...]
    note: str = ""
    n_queries: int = 0
    main: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """Queries under one heading."""

    title: str
    intro: str
    cards: tuple[Card, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """All that the page shows; the template adds words, not numbers."""

    title: str
    protocol: str
    split: str
    n_queries: int
    n_gallery: int
    excludes_reference: bool
    average: tuple[str, ...]  # the metrics whose mean is "Avg"
    columns: tuple[str, ...]  # names of the metrics
    rows: tuple[Row, ...]  # the run, then its baselines
    errors: tuple[float | None, ...]  # standard error of the run's metrics
    kinds: tuple[Row, ...]
    charts: tuple[charts.Chart, ...]
    sections: tuple[Section, ...]
    facts: Mapping[str, str]  # how the page came about: name -> value
    credit: str  # of the pictures

    @property
    def headline(self) -> tuple[tuple[str, float | None, float | None], ...]:
        """The run's metric at each first cut-off, and the average: (name, percent, standard error)."""
        found = zip(self.columns, self.rows[0].values, self.errors, strict=True)
        return tuple(metric for metric in found if metric[0].endswith("@1") or metric[0] == "Avg")

    @property
    def n_ranked(self) -> int:
        """How many pictures a query ranks."""
        return self.n_gallery - self.excludes_reference

    @property
    def has_subset(self) -> bool:
        """Whether queries are ranked in groups too."""
        return any(column.startswith("Rs@") for column in self.columns)

    @property
    def has_maps(self) -> bool:
        """Whether any card shows what its fusion read."""
        return any(card.phrases for section in self.sections for card in section.cards)


def build_report(
    system: System,
    evaluation: Evaluation,
    pictures: Pictures,
    *,
    title: str,
    split: str,
    baselines: Mapping[str, Mapping[str, float]],
    metric_lines: Sequence[Mapping[str, Any]] = (),
    loss_weights: Mapping[str, float] | None = None,
    phrases_of: PhrasesOf | None = None,
    captions: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    credit: str = "",
    sample: int = 12,
    extremes: int = 6,
    seed: int = 0,
) -> Report:
    """Gathers a report.

    Args:
      system: what was evaluated; encodes the shown queries once more, for scores and attention.
      evaluation: its ranks over `pictures`.
      pictures: the gallery, by row.
      title: the heading, such as the run's name.
      split: what was evaluated on.
      baselines: the metrics of other queries of the same towers: "image", "text", "sum".
      metric_lines: the run's metrics, one mapping a line: step, name: value.
      loss_weights: the loss terms among those names, and their weights.
      phrases_of: the characters [start, end) of a text's phrases; None shows maps of tokens.
      captions: what each picture shows, by row; used as alternative texts.
      facts: more lines for the footer.
      credit: who made the pictures, and their licence.
      sample: number of queries drawn by `seed`.
      extremes: number of best and of worst queries.
      seed: of the drawn queries.
    """
    values, protocol = evaluation.metrics(), evaluation.protocol
    columns = tuple(values)
    cards = Cards(system, evaluation, pictures, phrases_of=phrases_of, captions=captions)
    run_hash, _, step = system.fingerprint.rpartition("-")
    query = system.query
    row = lambda name, found, **rest: Row(name, tuple(found.get(column) for column in columns), **rest)
    return Report(
        title=title,
        protocol=protocol.name,
        split=split,
        n_queries=len(evaluation.records),
        n_gallery=len(pictures),
        excludes_reference=protocol.excludes_reference,
        average=protocol.average if "Avg" in columns else (),
        columns=columns,
        rows=(
            row("this run", values, note=f"query: {query}", main=True),
            *(row(BASELINES.get(name, name), found, note="same towers") for name, found in baselines.items()),
        ),
        errors=tuple(_error(evaluation, column) for column in columns),
        kinds=tuple(row(k, v, n_queries=int(v["n_queries"])) for k, v in evaluation.by_kind().items()),
        charts=_charts(metric_lines, {"loss": 1.0, **(loss_weights or {})}),
        sections=_sections(cards, evaluation, sample=sample, extremes=extremes, seed=seed),
        facts={"Config": run_hash, "Checkpoint": f"step {step}", **(facts or {})},
        credit=credit,
    )


def _error(evaluation: Evaluation, column: str) -> float | None:
    """The standard error of a recall; means of recalls have none here."""
    kind, _, k = column.partition("@")
    ranks = {"R": evaluation.ranks, "Rs": evaluation.subset_ranks}.get(kind)
    return None if ranks is None else metrics.standard_error(ranks, int(k))


def _charts(lines: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> tuple[charts.Chart, ...]:
    """Loss terms, learning rate, and the first cut-off of what was evaluated along the way."""
    curve = lambda name: [(line["step"], line[name]) for line in lines if name in line]
    evaluated = dict.fromkeys(name for line in lines for name in line if "/" in name and name.endswith("@1"))
    losses = {name if weight == 1 else f"{name} (weight {weight:g})": curve(name) for name, weight in weights.items()}
    drawn = (
        charts.line_chart("Loss and its terms", losses, y_label="loss", logarithmic=True),
        charts.line_chart("Recall during training", {name: curve(name) for name in evaluated}, y_label="percent"),
        charts.line_chart("Learning rate", {"learning rate": curve("learning_rate")}, y_label="rate"),
    )
    return tuple(chart for chart in drawn if chart)


def _sections(cards: Cards, evaluation: Evaluation, *, sample: int, extremes: int, seed: int) -> tuple[Section, ...]:
    """A fair sample first, then the extremes, which are not. Each query is encoded once, all in one batch."""
    count = len(evaluation.records)
    drawn = np.sort(np.random.default_rng(seed).choice(count, min(sample, count), replace=False))
    lead = evaluation.scores[:, 0] - evaluation.scores[:, 1] if evaluation.scores.shape[1] > 1 else np.zeros(count)
    right = np.flatnonzero(evaluation.ranks == 0)
    best = right[np.argsort(-lead[right], kind="stable")][:extremes]
    worst = np.argsort(-evaluation.ranks, kind="stable")[:extremes]
    worst = worst[evaluation.ranks[worst] > 0]
    high = "The target is first, by the widest lead over the second." if len(best) else "No query has its target first."
    fair = f"{len(drawn)} of {count:,} queries, drawn at random (seed {seed}), not picked."
    low = "The target is ranked furthest down." if len(worst) else "Every query has its target first."
    shown = np.unique(np.concatenate([drawn, best, worst]))
    made = dict(zip(shown.tolist(), cards.make(shown), strict=True))
    pick = lambda queries: tuple(made[query] for query in queries.tolist())
    return (
        Section("A random sample", fair, pick(drawn)),
        Section("Best cases", high, pick(best)),
        Section("Worst cases", low, pick(worst)),
    )
