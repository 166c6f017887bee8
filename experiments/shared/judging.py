"""The questions to a judge about the records of a protocol, and the metrics of its votes."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contextjax import metrics
from contextjax.evaluation import CandidateEvaluation, Evaluation
from contextjax.evaluation.shared import by_label
from contextjax.types import CandidateRecord, ComposedRecord, EvaluationProtocol
from data_pipelines.chat.questions import ShownPicture
from data_pipelines.judge.judge import Judge, Vote, combined
from data_pipelines.tables import PictureTable


class Task(ABC):
    """The questions about the records of a split, whose targets are known.

    Attributes:
      records: the records.
      candidates: the names of each record's candidates.
      targets: the column of each record's target among its candidates; -1 where it is not one of them.
      interval_of: the name of the metric whose interval is reported.
      groups: a key for each record; the bootstrap of the interval draws records of one key together.
    """

    records: Sequence[Any]
    candidates: Sequence[Sequence[str]]
    targets: np.ndarray
    interval_of: str
    groups: Sequence[Any]

    @abstractmethod
    def ask(self, judge: Judge, row: int, show: Any) -> list[Vote]:
        """Asks about a record; `show` returns the picture of a name. Raises Waiting where an answer is pending."""

    @abstractmethod
    def scored(self, scores: np.ndarray) -> Scored:
        """Returns the metrics of scores [Q, C] of the candidates, NaN where a record has no valid answer."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """Metrics of votes, by rows of the task's records."""

    metrics: Any  # rows -> metrics in percent
    by_kind: Mapping[str, Mapping[str, float]]
    baselines: Any  # rows -> name -> metrics
    values: np.ndarray  # [Q], 0 to 1; their mean is the metric `interval_of`


class ChooseTask(Task):
    """The task of candidate sets: to choose the picture that a description is about."""

    interval_of = "accuracy"

    def __init__(self, records: Sequence[CandidateRecord], *, pairs: bool):
        self.records, self._pairs = records, pairs
        self.candidates = [record.images for record in records]
        self.targets = np.asarray([record.target for record in records])
        self.groups = [record.set or record.images for record in records]

    def ask(self, judge: Judge, row: int, show: Any) -> list[Vote]:
        """Asks which candidate is described."""
        record = self.records[row]
        return judge.choose([show(name) for name in record.images], record.text, is_ordered=record.is_ordered)

    def scored(self, scores: np.ndarray) -> Scored:
        """Returns the accuracy, and that of pairs where sets are pairs."""
        ranks = metrics.rank_of_truth(scores, self.targets)
        whole = CandidateEvaluation(self.records, scores, ranks, self._pairs)
        some = lambda rows: dataclasses.replace(whole, records=[self.records[r] for r in rows], ranks=ranks[rows])
        return Scored(whole.metrics, whole.by_kind(), lambda rows: some(rows).baselines(), ranks < 1)


class GroupTask(Task):
    """The task of composed queries with groups: to order the query's own group, or its own gallery."""

    def __init__(self, records: Sequence[ComposedRecord], protocol: EvaluationProtocol):
        self.records = records
        self.candidates = [tuple(name for name in r.subset if name != r.reference) for r in records]
        self.targets = np.asarray(
            [
                own.index(str(r.target)) if r.target in own else -1
                for r, own in zip(records, self.candidates, strict=True)
            ]
        )
        own = protocol.gallery == "own"
        self._named = {
            f"{'R' if own else 'Rs'}@{k}": k for k in (protocol.recall_at if own else protocol.subset_recall_at)
        }
        self.interval_of, self._k = next(iter(self._named.items()))
        self.groups = [record.reference for record in records]

    def ask(self, judge: Judge, row: int, show: Any) -> list[Vote]:
        """Asks for an order of the record's candidates."""
        return _ranked(judge, self.records[row], self.candidates[row], show)

    def scored(self, scores: np.ndarray) -> Scored:
        """Returns the recall within the group."""
        ranks = metrics.rank_of_truth(scores, self.targets)
        recalls = lambda rows: {name: metrics.recall_at(ranks[rows], k) for name, k in self._named.items()}
        sizes = np.asarray([len(own) for own in self.candidates])
        chance = lambda rows: {
            name: float(np.mean(100 * np.minimum(1, k / sizes[rows]))) for name, k in self._named.items()
        }
        return Scored(
            recalls,
            by_label([record.kinds for record in self.records], recalls),
            lambda rows: {"random": chance(rows)},
            ranks < self._k,
        )


class RerankTask(Task):
    """The task of re-ranking composed queries: to order the first pictures of a run's ranking."""

    def __init__(self, evaluation: Evaluation, ids: Sequence[str], count: int):
        """Takes a run's evaluation, the names of the pictures by row, and how many are ordered."""
        self._run, self.records, self._count = evaluation, evaluation.records, count
        is_ranked = np.isfinite(evaluation.scores[:, :count])
        self.candidates = [
            tuple(str(ids[row]) for row in top[:count][is_real])
            for top, is_real in zip(evaluation.top, is_ranked, strict=True)
        ]
        target = evaluation.truth_ranks[:, 0]
        self.targets = np.where((target >= 0) & (target < is_ranked.sum(axis=1)), target, -1)
        protocol = evaluation.protocol
        self._precise, self._k = bool(protocol.map_at), (protocol.map_at or protocol.recall_at)[0]
        self.interval_of = f"{'mAP' if self._precise else 'R'}@{self._k}"
        self.groups = [record.reference for record in self.records]

    def ask(self, judge: Judge, row: int, show: Any) -> list[Vote]:
        """Asks for an order of the record's candidates."""
        return _ranked(judge, self.records[row], self.candidates[row], show)

    def scored(self, scores: np.ndarray) -> Scored:
        """Returns the protocol's metrics over whole galleries, none of groups. The run's own order is the baseline."""
        judged, before = self._run.reranked(scores), "the run's own order"
        of = lambda evaluation: (
            lambda rows: {
                name: value
                for name, value in evaluation.metrics(rows).items()
                if not name.startswith("Rs@") and name != "Avg"
            }
        )
        truths, k = judged.truth_ranks, self._k
        values = metrics.average_precision_at(truths, k) if self._precise else judged.ranks < k
        kinds = by_label([record.kinds for record in self.records], of(judged))
        return Scored(of(judged), kinds, lambda rows: {before: of(self._run)(rows)}, values)


def _ranked(judge: Judge, record: ComposedRecord, names: Sequence[str], show: Any) -> list[Vote]:
    return judge.rank(show(record.reference), [show(name) for name in names], record.text)


def scores_of(task: Task, votes: Sequence[Sequence[Vote]]) -> np.ndarray:
    """Returns the mean scores float64 [Q, C] over orders.

    -inf fills the columns that a record with fewer candidates lacks, NaN the row of a record without a valid answer.
    """
    scores = np.full((len(votes), max(map(len, task.candidates))), -np.inf)
    for row, (own, names) in enumerate(zip(votes, task.candidates, strict=True)):
        mean = combined(own)
        scores[row, : len(names)] = mean
        if np.isnan(mean).all():
            scores[row] = np.nan  # the padding, too: nothing is known of this row
    return scores


def by_position(task: Task, votes: Sequence[Sequence[Vote]]) -> dict[str, dict[str, float]]:
    """Returns how often the judge's first choice is the target, by the place where the target was shown."""
    right: dict[int, list[bool]] = {}
    for target, own in zip(task.targets, votes, strict=True):
        for vote in own if target >= 0 else ():
            right.setdefault(vote.shown.index(target) + 1, []).append(vote.best == target)
    return {str(place): {"n": len(own), "accuracy": 100 * float(np.mean(own))} for place, own in sorted(right.items())}


def draw_rows(records: Sequence[Any], count: int, seed: int, *, pairs: bool = False) -> np.ndarray:
    """Returns the rows of `count` records drawn at random, evenly over the kinds of candidates; all where it is 0.

    `pairs`: whole sets are drawn, `count` // 2 of them, each with its two records.
    """
    if not 0 < count < len(records):
        return np.arange(len(records))
    rng = np.random.default_rng(seed)
    if pairs:
        rows: dict[Any, list[int]] = {}
        for row, record in enumerate(records):
            rows.setdefault(record.images, []).append(row)
        sets = list(rows.values())
        return np.sort(np.concatenate([sets[i] for i in rng.permutation(len(sets))[: max(1, count // 2)]]))
    kinds: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        kinds.setdefault(getattr(record, "kind", ""), []).append(row)
    queues = [list(rng.permutation(own)) for _, own in sorted(kinds.items())]
    drawn = [queue[place] for place in range(max(map(len, queues))) for queue in queues if place < len(queue)]
    return np.sort(np.asarray(drawn[:count]))


def windowed(records: Sequence[CandidateRecord], size: int) -> list[CandidateRecord]:
    """Returns records with `size` successive candidates; a hash of the record's id decides the target's place."""
    return [_windowed(record, size) if 0 < size < len(record.images) else record for record in records]


def _windowed(record: CandidateRecord, size: int) -> CandidateRecord:
    target = int(record.target or 0)
    first, last = max(0, target - size + 1), min(target, len(record.images) - size)
    drawn = int.from_bytes(hashlib.blake2b(record.id.encode(), digest_size=4).digest())
    begin = first + drawn % (last - first + 1)
    return dataclasses.replace(record, images=record.images[begin : begin + size], target=target - begin)


def shown_picture(pictures: PictureTable, name: str) -> ShownPicture:
    """Returns a picture of a table as a question shows it."""
    data = pictures.encoded(name)
    return ShownPicture(name, hashlib.blake2b(data, digest_size=16).hexdigest(), data)
