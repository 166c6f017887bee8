"""A report of a system and its evaluation: the one path on which all kinds of reports are gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contextjax.evaluation import CandidateEvaluation, Evaluation, Pictures
from contextjax.reports.candidates import CandidateView
from contextjax.reports.composed import ComposedView
from contextjax.reports.learning import learning_charts
from contextjax.reports.maps import PhrasesOf
from contextjax.reports.report import Report, Row
from contextjax.reports.sections import make_sections
from contextjax.system import System

INTERVAL = ("low95", "high95")  # the metrics that bound the first one


def build_report(
    system: System,
    evaluation: Evaluation | CandidateEvaluation,
    pictures: Pictures,
    *,
    title: str,
    split: str,
    baselines: Mapping[str, Mapping[str, float]],
    protocol: str = "",
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
    """Gathers a report, a ComposedReport or a CandidateReport as the evaluation is.

    Args:
      system: what was evaluated; encodes the shown queries once more, for scores and attention.
      evaluation: its ranks over `pictures`, or over candidate sets of them.
      pictures: the gallery, or the pictures of all candidates, by row.
      title: the heading, such as the run's name.
      split: what was evaluated on.
      baselines: the metrics of other queries ("image", "text", "sum") or other scores ("itc", "itm", "sum") of the
        same towers, and of looking at nothing ("random", "best constant index").
      protocol: its name, where the evaluation names none.
      metric_lines: the run's metrics, one mapping a line: step, name: value.
      loss_weights: the loss terms among those names, and their weights.
      phrases_of: the characters [start, end) of a text's phrases; None shows maps of tokens.
      captions: what each picture shows, by row; used as alternative texts.
      facts: more lines for the footer.
      credit: who made the pictures, and their licence.
      sample: number of queries drawn by `seed`.
      extremes: number of best and of worst queries, or of right and of wrong ones.
      seed: of the drawn queries.
    """
    shown = {"phrases_of": phrases_of, "captions": captions}
    if isinstance(evaluation, CandidateEvaluation):
        view = CandidateView(system, evaluation, pictures, **shown)
    else:
        view = ComposedView(system, evaluation, pictures, **shown)
    values, count = evaluation.metrics(), len(evaluation.records)
    columns = tuple(name for name in values if name not in INTERVAL)
    run_hash, _, step = system.fingerprint.rpartition("-")
    beside = {name: view.baseline(name) for name in baselines}
    return view.report(
        {
            "title": title,
            "protocol": protocol,
            "split": split,
            "n_queries": count,
            "columns": columns,
            "rows": (
                _row("this run", values, columns, note=view.how, main=True),
                *(_row(beside[name][0], found, columns, note=beside[name][1]) for name, found in baselines.items()),
            ),
            "kinds": tuple(
                _row(kind, found, columns, n_queries=int(found["n_queries"]))
                for kind, found in evaluation.by_kind().items()
            ),
            "charts": learning_charts(metric_lines, {"loss": 1.0, **(loss_weights or {})}, **view.tracked),
            "sections": make_sections(view.cards.make, count, view.picked(extremes), sample=sample, seed=seed),
            "facts": {"Config": run_hash, "Checkpoint": f"step {step}", **(facts or {})},
            "credit": credit,
        }
    )


def _row(name: str, found: Mapping[str, float], columns: Sequence[str], **rest: Any) -> Row:
    """A row of the metrics of `columns`, with their interval where there is one."""
    low, high = (found.get(bound) for bound in INTERVAL)
    interval = None if low is None or high is None else (low, high)
    return Row(name, tuple(found.get(column) for column in columns), interval=interval, **rest)
