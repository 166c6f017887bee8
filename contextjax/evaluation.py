"""A system and records -> ranks -> metrics: over a gallery by a protocol, or over each record's own candidates."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax import metrics
from contextjax.types import CandidateRecord, ComposedRecord, EvaluationProtocol, Picture, UserError

SETS = 64  # candidate sets that are held decoded at a time


class Encoder(Protocol):
    """What an evaluation needs of a system."""

    def encode_query(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """[B, D], L2-normalised."""
        ...

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """[N, D], L2-normalised."""
        ...


class CandidateScorer(Protocol):
    """What an evaluation of candidate sets needs of a system."""

    def score_sets(self, sets: Sequence[Sequence[Any]], texts: Sequence[str], ordered: Sequence[bool]) -> np.ndarray:
        """float32 [S, K], higher is better: how well each of a set's K nearly identical pictures fits its text.

        `ordered`: whether a set's pictures are one after the other in time.
        """
        ...


class Pictures(Protocol):
    """A picture table: ids, and pictures by row."""

    @property
    def ids(self) -> Sequence[str]:
        """Picture ids by row."""
        ...

    @property
    def row(self) -> Mapping[str, int]:
        """Row of each id."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Picture: ...


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Per query: its rank among all pictures and in its subset (-1 without one), and the best ones found.

    `records` gives the order; `top` holds gallery rows [Q, K], best first, and `scores` their cosines
    (-inf where nothing was left to return).
    """

    protocol: EvaluationProtocol
    records: Sequence[ComposedRecord]
    ranks: np.ndarray
    subset_ranks: np.ndarray
    top: np.ndarray
    scores: np.ndarray

    def metrics(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """The protocol's metrics in percent, over all queries or those of `rows`."""
        ranks, subset_ranks = self.ranks[rows], self.subset_ranks[rows]
        found = {f"R@{k}": metrics.recall_at(ranks, k) for k in self.protocol.recall_at}
        if (subset_ranks >= 0).all():
            found |= {f"Rs@{k}": metrics.recall_at(subset_ranks, k) for k in self.protocol.subset_recall_at}
        if self.protocol.average and all(name in found for name in self.protocol.average):
            found["Avg"] = float(np.mean([found[name] for name in self.protocol.average]))
        return found

    def by_kind(self) -> dict[str, dict[str, float]]:
        """The metrics of each kind of edit, where records have kinds."""
        return _by_kind(self.records, self.metrics)


@dataclasses.dataclass(frozen=True)
class CandidateEvaluation:
    """Per record: the scores [Q, K] of its candidates and the rank of the one that is described.

    K is that of the largest set; -inf stands where a smaller one has no candidate.
    """

    records: Sequence[CandidateRecord]
    scores: np.ndarray
    ranks: np.ndarray

    def metrics(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Accuracy in percent and its 95 % interval, over all records or those of `rows`."""
        low, high = metrics.recall_interval(self.ranks[rows], 1, _set_rows(self.records)[rows])
        return {"accuracy": metrics.recall_at(self.ranks[rows], 1), "low95": low, "high95": high}

    def by_kind(self) -> dict[str, dict[str, float]]:
        """The metrics of each kind of candidates, where records have kinds."""
        return _by_kind(self.records, self.metrics)

    def baselines(self) -> dict[str, dict[str, float]]:
        """What is reached without looking: at random, and by the one index that is most often right here."""
        indices = np.asarray([record.target for record in self.records])
        return {
            "random": {"accuracy": float(np.mean([100 / len(record.images) for record in self.records]))},
            "best constant index": {"accuracy": float(100 * np.bincount(indices).max() / len(indices))},
        }


def evaluate_retrieval(
    system: Encoder,
    protocol: EvaluationProtocol,
    records: Sequence[ComposedRecord],
    pictures: Pictures,
    *,
    chunk: int = 512,
    keep: int = 10,
) -> Evaluation:
    """Ranks all pictures for every record.

    Args:
      system: encodes queries and the gallery.
      protocol: what is excluded and at which cut-offs is counted.
      records: queries, each with a target.
      pictures: the gallery: every picture of the split, references included.
      chunk: queries ranked at a time; memory is O(chunk * gallery).
      keep: how many of the best pictures are kept for each query.

    Raises:
      UserError: an empty gallery, or a record without a target.
    """
    if not len(pictures):
        raise UserError("The gallery is empty; expected at least one picture.")
    _check_targets(records)
    gallery = encode_rows(system, pictures)
    parts = []
    for begin in range(0, len(records), chunk):
        part = records[begin : begin + chunk]
        images = [pictures[pictures.row[record.reference]] for record in part]
        scores = system.encode_query(images, [record.text for record in part]) @ gallery.T
        parts.append(_rank(scores, part, protocol, pictures.row, keep))
    ranks, subset_ranks, top, best = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Evaluation(protocol, records, ranks, subset_ranks, top, best)


def evaluate_candidates(
    system: CandidateScorer, records: Sequence[CandidateRecord], pictures: Pictures
) -> CandidateEvaluation:
    """Ranks every record's own candidates. Among equal scores the first candidate wins; NaN never does.

    Args:
      system: scores candidates.
      records: descriptions, each with a target.
      pictures: the pictures of all candidates.

    Raises:
      UserError: there are no records, or some have no target.
    """
    _check_targets(records)
    scores = score_records(system, records, pictures)
    truth = np.asarray([record.target for record in records])
    return CandidateEvaluation(records, scores, metrics.rank_of_truth(scores, truth))


def score_records(system: CandidateScorer, records: Sequence[CandidateRecord], pictures: Pictures) -> np.ndarray:
    """float32 [Q, K]: the scores of every record's candidates, -inf where a set has fewer than the largest.

    Targets are not looked at. Sets of one size go together, at most SETS at a time, and the descriptions of a set
    after each other, so that its pictures are read once.
    """
    width = max((len(record.images) for record in records), default=0)
    scores = np.full((len(records), width), -np.inf, np.float32)
    order = sorted(
        zip((len(record.images) for record in records), _set_rows(records), range(len(records)), strict=True)
    )
    for size, members in itertools.groupby(order, key=lambda entry: entry[0]):
        rows = [row for _, _, row in members]
        for begin in range(0, len(rows), SETS):
            part = rows[begin : begin + SETS]
            names = dict.fromkeys(name for row in part for name in records[row].images)
            read = {name: pictures[pictures.row[name]] for name in names}
            sets = [[read[name] for name in records[row].images] for row in part]
            ordered = [records[row].kind == "video" for row in part]
            scores[part, :size] = system.score_sets(sets, [records[row].text for row in part], ordered)
    return scores


def encode_rows(system: Encoder, pictures: Pictures, *, chunk: int = 1024) -> np.ndarray:
    """Gallery embeddings [G, D] of a picture table; at most `chunk` pictures are held decoded."""
    rows = range(len(pictures))
    return np.concatenate(
        [system.encode_gallery([pictures[i] for i in rows[b : b + chunk]]) for b in range(0, len(rows), chunk)]
    )


def _rank(scores: np.ndarray, records: Sequence[ComposedRecord], protocol: EvaluationProtocol,
          row: Mapping[str, int], keep: int) -> tuple[np.ndarray, ...]:  # fmt: skip
    scores = scores.astype(np.float32, copy=True)
    queries = np.arange(len(records))
    if protocol.excludes_reference:
        scores[queries, [row[record.reference] for record in records]] = -np.inf
    truth = np.asarray([row[record.target] for record in records if record.target])
    ranks = metrics.rank_of_truth(scores, truth)
    subset = np.full_like(scores, -np.inf)
    for query, record in enumerate(records):
        members = [row[name] for name in record.subset]
        subset[query, members] = scores[query, members]
    has_subset = np.asarray([record.target in record.subset for record in records])
    subset_ranks = np.where(has_subset, metrics.rank_of_truth(subset, truth), -1)
    top = metrics.top_k(scores, keep)
    return ranks, subset_ranks, top, np.take_along_axis(scores, top, axis=1)


def _check_targets(records: Sequence[ComposedRecord] | Sequence[CandidateRecord]) -> None:
    secret = sum(record.target is None for record in records)
    if secret or not records:
        raise UserError(f"{secret} of {len(records)} records have no target; evaluate a split that publishes them.")


def _by_kind(
    records: Sequence[ComposedRecord] | Sequence[CandidateRecord], metrics_of: Callable[[np.ndarray], dict[str, float]]
) -> dict[str, dict[str, float]]:
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        for kind in record.kinds:
            groups.setdefault(kind, []).append(row)
    return {kind: {**metrics_of(np.asarray(rows)), "n_queries": len(rows)} for kind, rows in sorted(groups.items())}


def _set_rows(records: Sequence[CandidateRecord]) -> np.ndarray:
    """int [Q]: which candidate set, in order of first appearance, each record is about."""
    sets: dict[tuple[str, ...], int] = {}
    return np.asarray([sets.setdefault(record.images, len(sets)) for record in records])
