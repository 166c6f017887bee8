"""The maths of retrieval metrics: scores -> rankings -> Recall@K. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def rank_of_truth(scores: Float[np.ndarray, "q g"], truth: Int[np.ndarray, " q"]) -> Int[np.ndarray, " q"]:
    """Rank (0 is best) of each query's truth. Ties break by gallery position, so ranks are deterministic.

    -inf marks what a query may not return.
    """
    own = np.take_along_axis(scores, truth[:, None], axis=1)
    before = np.arange(scores.shape[1])[None, :] < truth[:, None]
    # A score that is not a number beats nobody: without this a diverged system would look perfect.
    return ((scores > own) | ((scores == own) & before) | np.isnan(own)).sum(axis=1)


def top_k(scores: Float[np.ndarray, "q g"], k: int) -> Int[np.ndarray, "q k"]:
    """The k best gallery positions of each query, best first; ties by position."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def recall_at(ranks: Int[np.ndarray, " q"], k: int) -> float:
    """Share of queries whose truth is among the first k, in percent."""
    return float(100 * np.mean(ranks < k))


def standard_error(ranks: Int[np.ndarray, " q"], k: int) -> float:
    """Binomial standard error of recall_at, in percent."""
    share = np.mean(ranks < k)
    return float(100 * np.sqrt(share * (1 - share) / len(ranks)))


def recall_interval(
    ranks: Int[np.ndarray, " q"],
    k: int,
    groups: Sequence[int] | np.ndarray,
    *,
    level: float = 95.0,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of recall_at, in percent.

    Whole groups are drawn again: queries that share their pictures succeed and fail together, and an interval
    over queries would be too narrow.

    Args:
      ranks: rank of each query's truth.
      k: the cut-off.
      groups: what group each query belongs to.
      level: of confidence, in percent.
      resamples: how many times the groups are drawn.
      seed: of the draws.
    """
    row = np.unique(np.asarray(groups), return_inverse=True)[1]
    hits, sizes = np.bincount(row, weights=ranks < k), np.bincount(row)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (resamples, len(sizes)))
    recalls = 100 * hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(recalls, [50 - level / 2, 50 + level / 2])
    return float(low), float(high)


def pair_accuracy(ranks: Int[np.ndarray, " q"], pair_ids: Sequence[str] | np.ndarray) -> float:
    """Share of pairs both of whose queries are right, in percent: what a guess reaches is 25, a constant answer 0.

    Args:
      ranks: rank of each query's truth, 0 is right.
      pair_ids: the pair of each query; each comes twice.

    Raises:
      ValueError: a pair has not two queries.
    """
    pairs, row, sizes = np.unique(np.asarray(pair_ids), return_inverse=True, return_counts=True)
    if not len(pairs) or (sizes != 2).any():
        odd = f"pair {pairs[sizes != 2][0]} has {sizes[sizes != 2][0]}" if len(pairs) else "there are none"
        raise ValueError(f"Expected two queries of every pair, but {odd}; give whole pairs.")
    return float(100 * np.mean(np.bincount(row, weights=ranks == 0) == 2))


def combine_propositions(
    full: Float[np.ndarray, " k"],
    parts: Float[np.ndarray, "j k"],
    negated: Bool[np.ndarray, " j"],
    weights: Float[np.ndarray, " j"] | None = None,
    share: float = 0.5,
) -> Float[np.ndarray, " k"]:
    """Scores of K candidates by a whole text T and by the short sentences T_j that it consists of.

    s_k = share * s_k(T) + (1 - share) * sum_j ±a_j * s_k(T_j), with the minus where a sentence is negated (NDCR,
    Li et al. 2023, combines propositions so; here nothing is learned).

    Args:
      full: the whole text's scores; -inf where there is no candidate, and there it stays.
      parts: each sentence's scores. None of them (j = 0): `full` comes back.
      negated: whether a sentence says that something is not so.
      weights: a_j; None weighs all alike, with a sum of one.
      share: of the whole text, 0 to 1.

    Raises:
      ValueError: `share` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share of the whole text is {share}; expected 0 to 1.")
    if not len(parts):
        return full
    signed = np.where(negated, -1.0, 1.0) * (1 / len(parts) if weights is None else weights)
    real = full > -np.inf  # an infinite score of a sentence would turn into one that is not a number
    combined = share * np.where(real, full, 0) + (1 - share) * signed @ np.where(real, parts, 0)
    return np.where(real, combined, -np.inf).astype(full.dtype)
