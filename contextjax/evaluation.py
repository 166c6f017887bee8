"""One evaluator for every retrieval protocol: a system and records -> ranks -> metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax import metrics
from contextjax.types import ComposedRecord, EvaluationProtocol, Picture, UserError


class Encoder(Protocol):
    """What an evaluation needs of a system."""

    def encode_query(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """[B, D], L2-normalised."""
        ...

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """[N, D], L2-normalised."""
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
        kinds = [record.kind for record in self.records]
        groups = metrics.by_group(np.arange(len(kinds)), kinds)
        return {kind: {**self.metrics(rows), "n_queries": len(rows)} for kind, rows in groups.items() if kind}


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
    secret = [record.id for record in records if record.target is None]
    if secret or not records:
        raise UserError(
            f"{len(secret)} of {len(records)} records have no target; evaluate a split that publishes them."
        )
    gallery = encode_rows(system, pictures)
    parts = []
    for begin in range(0, len(records), chunk):
        part = records[begin : begin + chunk]
        images = [pictures[pictures.row[record.reference]] for record in part]
        scores = system.encode_query(images, [record.text for record in part]) @ gallery.T
        parts.append(_rank(scores, part, protocol, pictures.row, keep))
    ranks, subset_ranks, top, best = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Evaluation(protocol, records, ranks, subset_ranks, top, best)


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
