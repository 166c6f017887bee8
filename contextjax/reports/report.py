"""Builds and renders HTML pages of evaluations, picture pairs and compared variants; contents are plain values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jinja2
import numpy as np

from contextjax.evaluation import CandidateEvaluation, Evaluation, Pictures
from contextjax.evaluation.probes import SAME_SCORES
from contextjax.reports.candidates import CandidateView
from contextjax.reports.charts import Chart, learning_charts, probe_charts
from contextjax.reports.composed import ComposedView
from contextjax.reports.maps import PhrasesOf
from contextjax.reports.pictures import CaptionedPictures, data_uri
from contextjax.system import System
from contextjax.types import Picture, printable

INTERVAL = ("low95", "high95")  # the metrics that bound the first one

Interval = tuple[float, float]  # percent
Error = float | Interval | None  # a standard error, or a 95 % interval, in percent


@dataclasses.dataclass(frozen=True)
class MetricRow:
    """A row of a table of metrics: values in percent, None where there is none."""

    name: str
    values: tuple[float | None, ...]
    note: str = ""
    n_queries: int = 0
    main: bool = False
    interval: Interval | None = None  # the 95 % interval of the first value


@dataclasses.dataclass(frozen=True)
class Section:
    """Cards under one heading."""

    title: str
    intro: str
    cards: tuple[Any, ...]  # composed.QueryCard, candidates.SetCard or Sample


@dataclasses.dataclass(frozen=True)
class Report:
    """The contents of an evaluation's page; the template adds words, not numbers."""

    template: ClassVar[str] = "page.html.jinja"

    task: Literal["composed", "candidates"]
    title: str
    protocol: str
    split: str
    n_queries: int
    columns: tuple[str, ...]  # names of the metrics
    headline: tuple[tuple[str, float | None, Error], ...]  # the metrics that are shown large: (name, percent, error)
    rows: tuple[MetricRow, ...]  # the run, then its baselines
    kinds: tuple[MetricRow, ...]
    charts: tuple[Chart, ...]
    sections: tuple[Section, ...]
    probes: tuple[tuple[str, str], ...]  # each probe and its accuracies in words; empty where none was made
    n_probed: int  # the number of descriptions that were probed
    probe_charts: tuple[Chart, ...]
    by_phrases: tuple[MetricRow, ...]  # by the number of noun phrases of a text; empty where it was not counted
    single_modality: Mapping[str, Mapping[str, Any]]  # see evaluation.single_modality; empty where it was not measured
    grounding: Mapping[str, float]  # of phrases, see evaluate_grounding; empty where it was not measured
    read_by: str  # the units whose attention maps cards show: "phrase", "token", or "" for none
    facts: Mapping[str, str]  # how the page was made: name -> value
    credit: str  # authors and licence of the pictures
    # Composed queries only.
    n_gallery: int = 0
    n_ranked: int = 0  # pictures that a query ranks
    average: tuple[str, ...] = ()  # the metrics whose mean is "Avg"
    any_truth: bool = False  # R@K looks for any right picture
    # Candidate sets only.
    n_sets: int = 0
    sizes: tuple[int, int] = (0, 0)  # of the smallest and the largest set
    mask_rate: float = 0.0  # the share of patches that masking would hide

    @property
    def has_intervals(self) -> bool:
        """Returns whether a row has a confidence interval."""
        return any(row.interval for row in self.rows)

    @property
    def has_maps(self) -> bool:
        """Returns whether a card shows attention maps."""
        return any(card.has_maps for section in self.sections for card in section.cards)

    def has_metric(self, kind: str) -> bool:
        """Returns whether one of the columns is the metric `kind` at some cut-off, such as "mAP" at 5."""
        return any(column.startswith(f"{kind}@") for column in self.columns)


@dataclasses.dataclass(frozen=True)
class RunResults:
    """The results and logs of a run that its page shows beside the evaluation itself.

    Attributes:
      title, split: the heading, such as the run's name, and the evaluated split.
      baselines: metrics of other queries or scores of the same towers, and of systems that do not look, by name.
      protocol: the protocol's name, where the evaluation has none.
      metric_lines: the run's metrics log, one mapping a line: step, name: value.
      loss_weights: the loss terms among the logged names, and their weights.
      grounding: how well maps cover what phrases name, as evaluation.json has it.
      by_phrases, single_modality: metrics by number of phrases, and queries that one modality answers, likewise.
      probes: accuracies of candidate sets as pictures, texts and order change, see evaluation.probes.
      n_probed: the number of descriptions that were probed.
      facts, credit: more lines for the footer; authors and licence of the pictures.
    """

    title: str
    split: str
    baselines: Mapping[str, Mapping[str, float]]
    protocol: str = ""
    metric_lines: Sequence[Mapping[str, Any]] = ()
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    grounding: Mapping[str, float] = dataclasses.field(default_factory=dict)
    by_phrases: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    single_modality: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    probes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    n_probed: int = 0
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    credit: str = ""


def build_report(
    system: System,
    evaluation: Evaluation | CandidateEvaluation,
    pictures: Pictures,
    run: RunResults,
    *,
    phrases_of: PhrasesOf | None = None,
    captions: Sequence[str] = (),
    sample: int = 12,
    extremes: int = 6,
    seed: int = 0,
) -> Report:
    """Gathers the report of a composed or a candidate evaluation.

    Args:
      system: the evaluated system; it encodes the shown queries once more, for scores and attention.
      evaluation: ranks over `pictures`, or over candidate sets of them.
      pictures: the gallery, or the pictures of all candidates, by row.
      run: the other results of the run.
      phrases_of: finds the characters [start, end) of a text's phrases; None shows maps of tokens.
      captions: a description of each picture, by row; used as alternative text.
      sample: number of queries drawn at random.
      extremes: number of best and of worst queries, or of right and of wrong ones.
      seed: seed of the random draw.
    """
    shown = CaptionedPictures(pictures, captions)
    if isinstance(evaluation, CandidateEvaluation):
        view = CandidateView(system, evaluation, shown, phrases_of)
    else:
        view = ComposedView(system, evaluation, shown, phrases_of)
    columns, rows, kinds = _tables(view, run.baselines)
    run_hash, _, step = system.fingerprint.rpartition("-")
    return Report(
        task=view.task,
        title=run.title,
        split=run.split,
        n_queries=len(evaluation.records),
        columns=columns,
        headline=view.headline(columns, rows[0].values, rows[0].interval),
        rows=rows,
        kinds=kinds,
        charts=learning_charts(run.metric_lines, {"loss": 1.0, **run.loss_weights}, view.tracked),
        sections=_sections(view, extremes=extremes, sample=sample, seed=seed),
        probes=probe_rows(run.probes),
        n_probed=run.n_probed,
        probe_charts=probe_charts(run.probes),
        by_phrases=_rows(run.by_phrases, columns),
        single_modality=run.single_modality,
        grounding=run.grounding,
        read_by=view.read_by,
        facts={"Config": run_hash, "Checkpoint": f"step {step}", **run.facts},
        credit=run.credit,
        **{"protocol": run.protocol, **view.fields(columns)},
    )


def _tables(
    view: ComposedView | CandidateView, baselines: Mapping[str, Mapping[str, float]]
) -> tuple[tuple[str, ...], tuple[MetricRow, ...], tuple[MetricRow, ...]]:
    """Returns the names of the metrics, the rows of the run and its baselines, and the rows by kind of query."""
    metrics = view.evaluation.metrics()
    columns = tuple(name for name in metrics if name not in INTERVAL)
    rows = [_row("this run", metrics, columns, note=view.method, main=True)]
    for name, values in baselines.items():
        label, note = view.baseline(name)
        rows.append(_row(label, values, columns, note=note))
    return columns, tuple(rows), _rows(view.evaluation.by_kind(), columns)


def _rows(groups: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> tuple[MetricRow, ...]:
    """Returns a row for each group of queries."""
    return tuple(_row(name, own, columns, n_queries=int(own["n_queries"])) for name, own in groups.items())


def _row(name: str, metrics: Mapping[str, float], columns: Sequence[str], **rest: Any) -> MetricRow:
    low, high = (metrics.get(bound) for bound in INTERVAL)
    interval = None if low is None or high is None else (low, high)
    return MetricRow(name, tuple(metrics.get(column) for column in columns), interval=interval, **rest)


def probe_rows(probes: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Returns each probe and its accuracies in words, as 0: 51.2 (47.0 to 55.1); 0.5: 43.1 (39.2 to 46.9)."""

    def accuracy(row: Mapping[str, Any]) -> str:
        bounds = f" ({row['low95']:.1f} to {row['high95']:.1f})" if "low95" in row else ""
        return f"{row['accuracy']:.1f}{bounds}"

    def strength(row: Mapping[str, Any]) -> str:
        cut = round(row.get("cut", 0))
        return f"{row['strength']:g}: {accuracy(row)}" + (f", {cut} % of the texts cut" if cut else "")

    def words(rows: Any) -> str:
        if isinstance(rows, list):
            return "; ".join(map(strength, rows))
        moved = "scores permute" if rows["difference"] < SAME_SCORES else "scores do not permute"
        return f"{accuracy(rows)}; {moved}, largest difference {rows['difference']:.1e} of their deviation"

    return tuple((name, words(rows)) for name, rows in probes.items())


def _sections(view: ComposedView | CandidateView, *, extremes: int, sample: int, seed: int) -> tuple[Section, ...]:
    """Makes a random sample of all queries first, then the picked ones. Each card is made once, all in one call."""
    count = len(view.evaluation.records)
    drawn = np.sort(np.random.default_rng(seed).choice(count, min(sample, count), replace=False))
    fair = f"{len(drawn)} of {count:,} queries, drawn at random (seed {seed}), not picked."
    sections = (("A random sample", fair, drawn), *view.picked(extremes))
    shown = np.unique(np.concatenate([rows for _, _, rows in sections]))
    cards = dict(zip(shown.tolist(), view.cards(shown), strict=True))
    return tuple(Section(title, intro, tuple(cards[row] for row in rows.tolist())) for title, intro, rows in sections)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Two pictures and what is said about them."""

    id: str  # names the sample in a file of decisions
    pictures: tuple[tuple[str, str], ...]  # (a data: URI, its alternative text)
    text: str = ""
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SampleReport:
    """The contents of a page of samples, to look through or to decide on one by one."""

    template: ClassVar[str] = "samples.html.jinja"

    title: str
    kind: str  # of page
    lead: str
    counts: Mapping[str, str]  # shown large: name -> value
    sections: tuple[Section, ...]
    facts: Mapping[str, str]  # how the page was made: name -> value
    credit: str = ""  # authors and licence of the pictures
    decisions: str = ""  # name of the file that decisions are saved in; "": a page without decisions


@dataclasses.dataclass(frozen=True)
class ComparisonReport:
    """The contents of a page that compares trained variants: curves and a table, and no pictures."""

    template: ClassVar[str] = "comparison.html.jinja"

    title: str
    lead: str
    charts: tuple[Chart, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # of words
    facts: Mapping[str, str]  # how the page was made: name -> value
    credit: str = ""


def make_sample(
    id: str, pictures: Sequence[tuple[Picture, str]], *, text: str = "", notes: Sequence[str] = ()
) -> Sample:
    """Makes a sample of uint8 pictures [H, W, 3], each with its alternative text."""
    return Sample(id, tuple((data_uri(picture), alt) for picture, alt in pictures), text, tuple(notes))


def render(report: Report | SampleReport | ComparisonReport) -> str:
    """Renders one self-contained HTML page: style, charts and pictures are part of it.

    Every text is escaped; the links of the credit are the only addresses on the page.
    """
    return _environment().get_template(report.template).render(report=report)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: type(value)(printable(value)) if isinstance(value, str) else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "ordinal": ordinal, "share": share, "uncertainty": uncertainty}
    return environment


def percent(value: float | None) -> str:
    """Formats a percentage as 12.3, and None as a dash."""
    return "–" if value is None else f"{value:.1f}"


def share(value: float) -> str:
    """Formats a share of a whole as 12 % or <1 %."""
    return "<1 %" if value < 0.5 else f"{value:.0f} %"


def uncertainty(error: Error) -> str:
    """Formats a standard error as ± 1.2, and an interval as 10.1–12.5."""
    return f"{error[0]:.1f}–{error[1]:.1f}" if isinstance(error, tuple) else f"± {percent(error)}"


def ordinal(number: int) -> str:
    """Formats a rank as 1st, 2nd, 3rd or 1,204th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
