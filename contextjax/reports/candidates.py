"""The report of candidate sets (ContextBLIP): what it shows beside what all reports do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextjax.evaluation import CandidateEvaluation, Pictures
from contextjax.reports.maps import PhrasesOf
from contextjax.reports.report import Report
from contextjax.reports.sections import Picked
from contextjax.reports.sets import SetCards, shares
from contextjax.system import System
from contextjax.types import CandidateRecord

BASELINES = {  # other scores of a system's own towers, and what is reached without looking
    "itc": ("cosine of the embeddings", "itc, same towers"),
    "itm": ("matching head", "itm, same towers"),
    "sum": ("cosine + matching head", "sum, same towers"),
    "random": ("random", "without looking"),
    "best constant index": ("best constant index", "without looking"),
}


@dataclasses.dataclass(frozen=True)
class CandidateReport(Report):
    """All that the page of candidate sets shows."""

    n_sets: int
    sizes: tuple[int, int]  # of the smallest and the largest set
    mask_rate: float  # the share of patches that masking would hide
    read_by: str  # "phrase" or "token"

    @property
    def has_maps(self) -> bool:
        """Whether any card shows what its text read."""
        return any(card.heats for section in self.sections for card in section.cards)


class CandidateView:
    """How an evaluation of candidate sets is shown."""

    tracked: Mapping[str, str] = {"metric": "Accuracy", "ending": "/accuracy"}  # see learning_charts

    def __init__(
        self,
        system: System,
        evaluation: CandidateEvaluation,
        pictures: Pictures,
        *,
        phrases_of: PhrasesOf | None,
        captions: Sequence[str],
    ):
        self.evaluation = evaluation
        self.cards = SetCards(system, evaluation, pictures, phrases_of=phrases_of, captions=captions)
        self.how = f"score: {system.score}"

    def baseline(self, name: str) -> tuple[str, str]:
        """What a baseline is called, and a note."""
        return BASELINES.get(name, (name, ""))

    def report(self, shared: Mapping[str, Any]) -> CandidateReport:
        """The report, of the fields that all reports share."""
        sizes = [len(record.images) for record in self.evaluation.records]
        return CandidateReport(
            **shared,
            n_sets=len({record.images for record in self.evaluation.records}),
            sizes=(min(sizes), max(sizes)),
            mask_rate=self.cards.mask_rate,
            read_by="phrase" if self.cards.phrases_of else "token",
        )

    def picked(self, extremes: int) -> tuple[Picked, ...]:
        """Right answers and wrong ones, each from one end to the other: the extremes alone say little of the rest."""
        records, ranks = self.evaluation.records, self.evaluation.ranks
        right, wrong = np.flatnonzero(ranks == 0), np.flatnonzero(ranks > 0)
        lead = np.asarray([_lead(scores) for scores in self.evaluation.scores])
        shown = (
            spread(first_of_sets(records, right), -lead, extremes),
            spread(first_of_sets(records, wrong), ranks, extremes),
        )
        of = lambda rows, few, order: f"{len(rows):,} of {len(records):,} queries, {len(few)} of them shown, {order}."
        high = of(right, shown[0], "from the widest lead over the second candidate to the narrowest")
        low = of(wrong, shown[1], "from the target nearest to the top to the one furthest down")
        return (
            Picked("Right", high if len(right) else "No query is answered right.", shown[0]),
            Picked("Wrong", low if len(wrong) else "No query is answered wrong.", shown[1]),
        )


def first_of_sets(records: Sequence[CandidateRecord], rows: np.ndarray) -> np.ndarray:
    """Those of the rows whose set none before them is about: a section shows a set once."""
    first: dict[tuple[str, ...], int] = {}
    for row in rows.tolist():
        first.setdefault(records[row].images, row)
    return np.asarray(list(first.values()), int)


def spread(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly from the one of the smallest value to the one of the largest."""
    ordered = rows[np.argsort(values[rows], kind="stable")]
    return ordered[np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)]


def _lead(scores: np.ndarray) -> float:
    """How far the best candidate's share is above the next one's."""
    second, first = np.sort(np.append(shares(scores), 0))[-2:]
    return float(first - second)
