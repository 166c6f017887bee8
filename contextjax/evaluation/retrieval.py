"""Evaluates a system on composed queries: ranks a gallery by a protocol and computes metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from contextjax import metrics
from contextjax.evaluation.shared import Pictures, by_label, check_targets
from contextjax.types import ComposedRecord, EvaluationProtocol, UserError


class Encoder(Protocol):
    """A system as an evaluation of composed queries needs it.

    One whose attribute `query` is "token_max" has `encode_query_tokens` and `encode_gallery_tokens`, too, which give
    several vectors of each query and picture: it is ranked by the best pair of them.
    """

    def encode_query(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Returns embeddings [B, D], L2-normalised."""
        ...

    def encode_gallery(self, images: Sequence[Any]) -> np.ndarray:
        """Returns embeddings [N, D], L2-normalised."""
        ...


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The ranks (0 is best) and the best pictures of each query, in the order of `records`.

    A rank is -1 for a secret target, and in the group of a query that has no group.
    """

    protocol: EvaluationProtocol
    records: Sequence[ComposedRecord]
    n_gallery: int  # pictures that are ranked; where each query has its own few, of the one with most
    truth_ranks: np.ndarray  # [Q, T] of every right picture, the target first
    subset_ranks: np.ndarray  # [Q] of the target in the query's group
    top: np.ndarray  # [Q, K] picture rows, best first
    scores: np.ndarray  # [Q, K] their cosines; -inf where nothing was left to return
    subset_top: np.ndarray  # [Q, S] picture rows of the query's group, best first; -1 where it is smaller
    text_ranks: np.ndarray | None = None  # [Q] both ways: of the best text of the query's picture, among all texts

    @property
    def ranks(self) -> np.ndarray:
        """The ranks [Q] of the targets, or of the best right pictures where the protocol looks for any of them."""
        return np.take_along_axis(self.truth_ranks, self._sought[:, None], axis=1)[:, 0]

    @property
    def hits(self) -> dict[str, np.ndarray]:
        """The hits [Q] in the gallery and in the group: 1 where the first picture is right, see single_modality."""
        first = {"R@1": (self.truth_ranks == 0).any(axis=1).astype(float)}
        if self.protocol.subset_recall_at:
            first["Rs@1"] = np.where(self.subset_ranks < 0, np.nan, self.subset_ranks == 0)
        return first

    @property
    def picture_ranks(self) -> np.ndarray:
        """The ranks [P] of the best text of each different picture; of protocols that look both ways."""
        assert self.text_ranks is not None, "only of protocols that look both ways"
        return self.text_ranks[np.unique(self.targets, return_index=True)[1]]

    @property
    def targets(self) -> list[str]:
        """The pictures that `ranks` refers to; targets must not be secret."""
        return [_truths(record)[column] for record, column in zip(self.records, self._sought, strict=True)]

    @property
    def _sought(self) -> np.ndarray:
        """The columns [Q] of truth_ranks that R@K looks at."""
        if not self.protocol.any_truth:
            return np.zeros(len(self.truth_ranks), int)
        known = np.where(self.truth_ranks < 0, np.iinfo(self.truth_ranks.dtype).max, self.truth_ranks)
        return known.argmin(axis=1)

    def of_rows(self, rows: np.ndarray) -> Evaluation:
        """Returns the evaluation of some of the queries."""
        fields = ("truth_ranks", "subset_ranks", "top", "scores", "subset_top")
        records = [self.records[row] for row in rows]
        own = {name: getattr(self, name)[rows] for name in fields}
        return dataclasses.replace(self, records=records, text_ranks=None, **own)

    def reranked(self, scores: np.ndarray) -> Evaluation:
        """Returns the evaluation with the first N pictures of each ranking ordered by other scores, higher is better.

        Equal scores keep the order that was. The subset's ranks stay.

        Args:
          scores: [Q, N], of the pictures top[:, :N]. Where a query's are all NaN nothing is known of its N pictures:
            right ones among them count as the last of them.
        """
        failed, count = np.isnan(scores).all(axis=1), scores.shape[1]
        order = np.argsort(-scores, axis=1, kind="stable")
        place, ranks, top = np.argsort(order, axis=1), self.truth_ranks.copy(), self.top.copy()
        top[:, :count] = np.take_along_axis(self.top[:, :count], order, axis=1)
        inside = (ranks >= 0) & (ranks < count)
        ranks[inside] = place[np.nonzero(inside)[0], ranks[inside]]
        for row in np.flatnonzero(failed):
            ranks[row, inside[row]] = count - 1 - np.arange(inside[row].sum())
        return dataclasses.replace(self, truth_ranks=ranks, top=top, text_ranks=None)

    def metrics(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Returns the protocol's metrics in percent, over all queries or those of `rows`."""
        check_targets(self.records)
        ranks, subset_ranks, truths = self.ranks[rows], self.subset_ranks[rows], self.truth_ranks[rows]
        precision = lambda k: float(100 * np.mean(metrics.average_precision_at(truths, k)))
        values = {f"mAP@{k}": precision(k) for k in self.protocol.map_at}
        if self.protocol.gallery == "instance":
            values |= _over_instances(truths, np.asarray([instance_of(name) for name in self.targets])[rows])
        recall = "IR" if self.protocol.both_ways else "R"
        values |= {f"{recall}@{k}": metrics.recall_at(ranks, k) for k in self.protocol.recall_at}
        # Some of the queries are not all texts of their pictures.
        if self.text_ranks is not None and isinstance(rows, slice):
            values |= {f"TR@{k}": metrics.recall_at(self.picture_ranks, k) for k in self.protocol.recall_at}
        grouped = subset_ranks >= 0
        if grouped.all() or (self.protocol.any_truth and grouped.any()):
            subset_ranks = subset_ranks[grouped]
            values |= {f"Rs@{k}": metrics.recall_at(subset_ranks, k) for k in self.protocol.subset_recall_at}
        if self.protocol.average and all(name in values for name in self.protocol.average):
            values["Avg"] = float(np.mean([values[name] for name in self.protocol.average]))
        return values

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Returns the metrics of the queries of each kind, where records have kinds.

        Where several pictures may be right, `n_truths` is their mean number.
        """
        return self.by([record.kinds for record in self.records])

    def by(self, labels: Sequence[Collection[Any]]) -> dict[str, dict[str, float]]:
        """Returns the metrics of the queries with each label, given the labels of each query, as by_kind does."""
        if not (self.protocol.map_at or self.protocol.gallery == "instance"):
            return by_label(labels, self.metrics)
        truths = np.asarray([len(_truths(record)) for record in self.records])
        return by_label(labels, lambda rows: {**self.metrics(rows), "n_truths": float(truths[rows].mean())})


def evaluate_retrieval(
    system: Encoder,
    protocol: EvaluationProtocol,
    records: Sequence[ComposedRecord],
    pictures: Pictures,
    *,
    embeddings: np.ndarray | None = None,
    chunk: int = 512,
    keep: int = 10,
) -> Evaluation:
    """Ranks the protocol's gallery for every record: rank_records of records that all have a target.

    Raises:
      UserError: an empty gallery, a record without a target, or one that names pictures that are not there.
    """
    if not len(pictures):
        raise UserError("The gallery is empty; expected at least one picture.")
    check_targets(records)
    return rank_records(system, protocol, records, pictures, embeddings=embeddings, chunk=chunk, keep=keep)


def rank_records(
    system: Encoder,
    protocol: EvaluationProtocol,
    records: Sequence[ComposedRecord],
    pictures: Pictures,
    *,
    embeddings: np.ndarray | None = None,
    chunk: int = 512,
    keep: int = 10,
) -> Evaluation:
    """Ranks the protocol's gallery for every record; targets may be secret.

    Memory beside the embeddings is O(chunk * metrics.CHUNK), however large the gallery is.

    Args:
      system: encodes queries and the gallery.
      protocol: what the gallery is and what is excluded.
      records: queries. They are encoded in the order of their references, so that a system meets a picture once.
      pictures: every picture of the split, references included.
      embeddings: of the pictures gallery_rows(protocol, records, pictures), where they are there already.
      chunk: queries ranked at a time.
      keep: how many of the best pictures are kept for each query.

    Raises:
      UserError: records name pictures that are not there.
    """
    rows = gallery_rows(protocol, records, pictures)
    embeddings = encode_rows(system, pictures, rows) if embeddings is None else embeddings
    place = np.full(len(pictures), -1)
    place[rows] = np.arange(len(rows))
    at = lambda name: place[pictures.row[name]]
    truths = _padded([[at(name) for name in _truths(record)] for record in records])
    members = _padded([np.unique([at(name) for name in record.subset]) for record in records])
    excluded = np.asarray([at(record.reference) if protocol.excludes_reference else -1 for record in records], int)
    instances = None
    if protocol.gallery == "instance":
        instances = np.asarray([instance_of(str(pictures.ids[row])) for row in rows])
    order = np.argsort([pictures.row[record.reference] for record in records], kind="stable")
    parts, asked = [], []
    for begin in range(0, len(records), chunk):
        part = order[begin : begin + chunk]
        queries = _encode_queries(system, protocol, [records[row] for row in part], pictures)
        asked += [queries] if protocol.both_ways else []
        own = _rank_members(queries, embeddings, truths[part], members[part], excluded[part], keep)
        if protocol.gallery == "own":
            parts.append((own.ranks, own.ranks[:, 0], own.top, own.scores, own.top))
            continue
        if instances is not None:
            every = _rank_instances(queries, embeddings, truths[part], instances, excluded[part], keep)
        else:
            every = metrics.rank_gallery(queries, embeddings, truths[part], excluded=excluded[part], keep=keep)
        parts.append((every.ranks, own.ranks[:, 0], every.top, every.scores, own.top))
    back = np.argsort(order)
    ranks, subset_ranks, top, scores, subset_top = (np.concatenate(column)[back] for column in zip(*parts, strict=True))
    pictured = lambda places: np.where(places < 0, -1, rows[places])
    size = members.shape[1] if protocol.gallery == "own" else len(rows)
    size = size if instances is None else int(np.unique(instances, return_counts=True)[1].max())
    text_ranks = _rank_texts(np.concatenate(asked)[back], embeddings, truths[:, 0]) if asked else None
    ranked = (ranks, subset_ranks, pictured(top), scores, pictured(subset_top), text_ranks)
    return Evaluation(protocol, records, size, *ranked)


def gallery_rows(protocol: EvaluationProtocol, records: Sequence[ComposedRecord], pictures: Pictures) -> np.ndarray:
    """Returns the picture rows that the protocol ranks, ascending.

    Raises:
      UserError: records name pictures that are not there, or right ones that are not ranked.
    """
    named = {
        "all": lambda: pictures.ids,
        "named": lambda: [name for record in records for name in (record.reference, *_truths(record))],
        "own": lambda: [name for record in records for name in record.subset],
        "instance": lambda: _of_instances(pictures, records),
    }[protocol.gallery]()
    ranked, problems = set(named), []
    for record in records:
        rankable = set(record.subset) if protocol.gallery == "own" else ranked
        absent = [name for name in (record.reference, *record.subset) if name not in pictures.row]
        absent += [name for name in _truths(record) if name not in pictures.row or name not in rankable]
        if protocol.gallery == "instance":
            absent += [name for name in _truths(record) if instance_of(name) != instance_of(record.target or "")]
        problems += [f"{record.id} names {absent[0]}"] if absent else []
    if problems:
        raise UserError(
            f"{len(problems)} of {len(records)} records name pictures that the gallery lacks ({problems[0]}); "
            "add the pictures, or remove the records."
        )
    return np.asarray(sorted(pictures.row[name] for name in ranked), int)


def instance_of(picture: str) -> str:
    """Returns the instance of a picture, where a gallery is one of an instance: its id up to the first "/"."""
    return picture.partition("/")[0]


def _of_instances(pictures: Pictures, records: Sequence[ComposedRecord]) -> list[str]:
    """Returns the pictures of the instances that the records ask for."""
    asked = {instance_of(name) for record in records for name in _truths(record)}
    return [name for name in pictures.ids if instance_of(name) in asked]


def _over_instances(truths: np.ndarray, instances: np.ndarray) -> dict[str, float]:
    """Returns mAP, the mean over queries [Q], and mmAP, the mean over instances of the mean over their queries."""
    precision = 100 * metrics.average_precision(truths)
    means = [precision[instances == name].mean() for name in np.unique(instances)]
    return {"mAP": float(precision.mean()), "mmAP": float(np.mean(means))}


def encode_rows(
    system: Encoder, pictures: Pictures, rows: Sequence[int] | np.ndarray | None = None, *, chunk: int = 1024
) -> np.ndarray:
    """Returns the embeddings [G, D] or [G, L, D] of a table's pictures, or those of `rows`.

    At most `chunk` pictures are held decoded.
    """
    rows = range(len(pictures)) if rows is None else rows
    encode = _encoder(system, "encode_gallery")
    return np.concatenate([encode([pictures[i] for i in rows[b : b + chunk]]) for b in range(0, len(rows), chunk)])


def _encoder(system: Any, method: str) -> Any:
    """Returns the method of a system by which its evaluation encodes."""
    return getattr(system, f"{method}_tokens" if getattr(system, "query", "") == "token_max" else method)


def mean_metrics(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the unweighted mean over the parts of a split, for every metric that all parts have."""
    common = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: float(np.mean([part[name] for part in parts])) for name in common}


def _encode_queries(
    system: Encoder, protocol: EvaluationProtocol, records: Sequence[ComposedRecord], pictures: Pictures
) -> np.ndarray:
    """Returns the queries [Q, D]; with rewordings, the normalised mean over the text and its rewordings."""
    texts = [(r.text, *(r.rewordings if protocol.averages_rewordings else ())) for r in records]
    read = {name: pictures[pictures.row[name]] for name in dict.fromkeys(record.reference for record in records)}
    images = [read[record.reference] for record, own in zip(records, texts, strict=True) for _ in own]
    embeddings = _encoder(system, "encode_query")(images, [text for own in texts for text in own])
    if not protocol.averages_rewordings:
        return embeddings
    sums = np.add.reduceat(embeddings, np.cumsum([0, *map(len, texts[:-1])]), axis=0)
    return sums / np.linalg.norm(sums, axis=-1, keepdims=True)


def _rank_texts(texts: np.ndarray, gallery: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Returns for each text [Q] the rank, among all texts, of the best one of its picture, a row of the gallery."""
    shown, place = np.unique(pictures, return_inverse=True)
    by_picture = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    ranks = metrics.rank_gallery(gallery[shown], texts, _padded(by_picture), keep=1).ranks
    return np.where(ranks < 0, len(texts), ranks).min(axis=1)[place]


def _rank_members(queries: np.ndarray, gallery: np.ndarray, truths: np.ndarray, members: np.ndarray,
                  excluded: np.ndarray, keep: int) -> metrics.Ranking:  # fmt: skip
    """Ranks each query's own few rows `members` [Q, S] of the gallery, ascending and padded with -1."""
    scores = np.full(members.shape, -np.inf)
    for column, rows in enumerate(members.T):
        allowed = (rows >= 0) & (rows != excluded)
        scores[:, column] = np.where(allowed, metrics.cosines(queries, gallery, rows), -np.inf)
    is_truth = (members[:, None] == truths[..., None]) & (truths >= 0)[..., None]  # [Q, T, S]
    ranks = [metrics.rank_of_truth(scores, column) for column in is_truth.argmax(axis=2).T]
    best = metrics.top_k(scores, keep)
    top, kept = np.take_along_axis(members, best, axis=1), np.take_along_axis(scores, best, axis=1)
    ranks = np.where(is_truth.any(axis=2), np.stack(ranks, axis=1), -1)
    return metrics.Ranking(ranks, np.where(np.isfinite(kept), top, -1), kept.astype(np.float32))


def _rank_instances(queries: np.ndarray, gallery: np.ndarray, truths: np.ndarray, instances: np.ndarray,
                    excluded: np.ndarray, keep: int) -> metrics.Ranking:  # fmt: skip
    """Ranks for each query the rows of the gallery that have the instance of its first truth, given that of each row.

    Where an instance has fewer than `keep` rows, -1 stands behind them.
    """
    ranks = np.full(truths.shape, -1)
    top, scores = np.full((len(queries), keep), -1), np.full((len(queries), keep), -np.inf, np.float32)
    asked = instances[truths[:, 0]]
    for name in np.unique(asked):
        own, rows = np.flatnonzero(asked == name), np.flatnonzero(instances == name)
        place = np.append(np.full(len(gallery), -1), -1)  # the last one is that of -1
        place[rows] = np.arange(len(rows))
        options = {"excluded": place[excluded[own]], "keep": keep}
        ranking = metrics.rank_gallery(queries[own], gallery[rows], place[truths[own]], **options)
        width = ranking.top.shape[1]
        ranks[own], scores[own, :width] = ranking.ranks, ranking.scores
        top[own, :width] = np.where(np.isfinite(ranking.scores), rows[ranking.top], -1)
    return metrics.Ranking(ranks, top, scores)


def _truths(record: ComposedRecord) -> list[str]:
    """Returns all right pictures, the target first; none where they are secret."""
    return [name for name in dict.fromkeys((record.target, *record.truths)) if name]


def _padded(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Returns Q short lists as int [Q, N], N >= 1, padded with -1."""
    padded = np.full((len(rows), max([1, *map(len, rows)])), -1)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded
