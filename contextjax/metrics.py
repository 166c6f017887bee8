"""Computes rankings from embeddings or scores, and Recall@K, mAP@K and accuracies from rankings; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

CHUNK = 4096  # gallery rows that are scored at a time
GRID = 2.0**25  # embeddings are scored as multiples of 1 / GRID, see cosines


class Ranking(NamedTuple):
    """A gallery as Q queries rank it: the rank (0 is best) of each truth, and the best rows with their scores."""

    ranks: Int[np.ndarray, "q t"]  # -1 where a query has no such truth
    top: Int[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]  # float32; -inf where nothing was left to return


def rank_gallery(
    queries: Float[np.ndarray, "q *l d"],
    gallery: Float[np.ndarray, "g *l d"],
    truths: Int[np.ndarray, "q t"],
    *,
    excluded: Int[np.ndarray, " q"] | None = None,
    keep: int = 10,
    chunk: int = CHUNK,
) -> Ranking:
    """Ranks a gallery of any size, exactly: the result does not depend on `chunk`. Ties break by gallery position.

    Beside the embeddings it holds a few arrays [Q, chunk] of float64, never [Q, G].

    Args:
      queries: L2-normalised; or several vectors of each, of which the best pair with the gallery's counts ("max over
        tokens"). Means of L2-normalised vectors are scored by their product ("mean").
      gallery: L2-normalised; as many vectors of each row as a query has.
      truths: gallery rows of each query's right pictures; -1 where it has fewer than others.
      excluded: the gallery row that each query may not return; -1: none.
      keep: how many of the best rows are kept for each query.
      chunk: gallery rows that are scored at a time.
    """
    excluded = np.full(len(queries), -1) if excluded is None else excluded
    queries, count = _on_grid(queries), len(gallery)
    chunk = max(chunk // (queries[0].size // queries.shape[-1] if len(queries) else 1), 1)
    own = np.stack([cosines(queries, gallery, column, on_grid=True) for column in truths.T], axis=1)
    own[truths == excluded[:, None]] = -np.inf
    ranks = np.zeros(truths.shape, np.int64)
    top, best = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0))
    for begin in range(0, count, chunk):
        scores = similarities(queries, _on_grid(gallery[begin : begin + chunk]))
        np.copyto(scores, -np.inf, where=np.isnan(scores))  # a score that is not a number beats no other
        inside = np.flatnonzero((excluded >= begin) & (excluded < begin + chunk))
        scores[inside, excluded[inside] - begin] = -np.inf
        rows = np.arange(begin, begin + scores.shape[1])
        for column in range(truths.shape[1]):
            having = np.flatnonzero(truths[:, column] >= 0)  # few queries have as many right pictures as the others
            some = scores if len(having) == len(scores) else scores[having]
            score, truth = own[having, column, None], truths[having, column, None]
            ranks[having, column] += ((some > score) | ((some == score) & (rows < truth))).sum(axis=1)
        rows_kept = top_k(scores, keep)
        # Earlier chunks stand first, so that a stable sort breaks ties by position.
        best = np.concatenate([best, np.take_along_axis(scores, rows_kept, axis=1)], axis=1)
        top = np.concatenate([top, rows_kept + begin], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :keep]
        top, best = np.take_along_axis(top, order, axis=1), np.take_along_axis(best, order, axis=1)
    ranks = np.where(np.isnan(own), count, ranks)
    return Ranking(np.where(truths < 0, -1, ranks), top, best.astype(np.float32))


def similarities(
    queries: Float[np.ndarray, "q *l d"], gallery: Float[np.ndarray, "n *l d"]
) -> Float[np.ndarray, "q n"]:
    """Returns the product [Q, N] of each query and each row; of several vectors of both, the largest of all pairs."""
    if queries.ndim == 2:
        return queries @ gallery.T
    flat, best = gallery.reshape(-1, gallery.shape[-1]).T, np.full((len(queries), len(gallery)), -np.inf)
    for vector in range(queries.shape[1]):
        of_vector = (queries[:, vector] @ flat).reshape(len(queries), *gallery.shape[:2])
        np.maximum(best, of_vector.max(axis=2), out=best)
    return best


def cosines(
    queries: Float[np.ndarray, "q *l d"],
    gallery: Float[np.ndarray, "g *l d"],
    rows: Int[np.ndarray, " q"],
    *,
    on_grid: bool = False,
) -> Float[np.ndarray, " q"]:
    """Returns the float64 score of each query and its own gallery row, as rank_gallery has it, to the last bit.

    Embeddings are rounded to multiples of 2^-25, about what float32 holds of them. A product is then one of 2^-50, and
    sums of them below 8 are exact in float64: in whatever order, by whatever chunk a library adds them, equal pictures
    have equal scores. Of several vectors of each, the best pair counts.
    """
    queries, own = queries if on_grid else _on_grid(queries), _on_grid(gallery[rows])
    if queries.ndim == 2:
        return np.einsum("qd,qd->q", queries, own)
    return np.einsum("qid,qjd->qij", queries, own, optimize=True).max(axis=(1, 2))


def _on_grid(embeddings: Float[np.ndarray, "n *l d"]) -> Float[np.ndarray, "n *l d"]:
    return np.rint(embeddings.astype(np.float64) * GRID) / GRID


def rank_of_truth(scores: Float[np.ndarray, "q g"], truth: Int[np.ndarray, " q"]) -> Int[np.ndarray, " q"]:
    """Returns the rank (0 is best) of each query's truth. Ties break by gallery position, so ranks are deterministic.

    -inf marks what a query may not return.
    """
    own = np.take_along_axis(scores, truth[:, None], axis=1)
    before = np.arange(scores.shape[1])[None, :] < truth[:, None]
    # A score that is not a number beats nobody: without this a diverged system would look perfect.
    return ((scores > own) | ((scores == own) & before) | np.isnan(own)).sum(axis=1)


def top_k(scores: Float[np.ndarray, "q g"], k: int) -> Int[np.ndarray, "q k"]:
    """Returns the k best gallery positions of each query, best first; ties by position. NaN is as good as -inf."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    count = scores.shape[1]
    if k < count:
        last = np.partition(scores, count - k, axis=1)[:, count - k, None]  # the k-th best
        level = scores == last
        room = k - (scores > last).sum(axis=1, keepdims=True)
        taken = (scores > last) | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))
        best = np.nonzero(taken)[1].reshape(len(scores), k)
    else:
        best = np.broadcast_to(np.arange(count), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def average_precision_at(ranks: Int[np.ndarray, "q t"], k: int) -> Float[np.ndarray, " q"]:
    """Returns AP@K of each query, (1 / min(T, K)) sum over the first K of P(k) rel(k); mAP@K is the mean.

    CIRCO defines it so (Baldrati et al. 2023).

    Args:
      ranks: rank (0 is best) of each of a query's T right pictures, all different; -1 where it has fewer than others.
      k: the cut-off.
    """
    known = ranks >= 0
    ordered = np.sort(np.where(known, ranks, np.iinfo(ranks.dtype).max), axis=1)
    # The i-th of the right pictures, at rank r, adds P(r + 1) = i / (r + 1).
    precision = np.arange(1, ranks.shape[1] + 1) / (ordered + 1.0)
    return np.where(ordered < k, precision, 0).sum(axis=1) / np.minimum(known.sum(axis=1), k)


def average_precision(ranks: Int[np.ndarray, "q t"]) -> Float[np.ndarray, " q"]:
    """Returns the area under each query's curve of precision over recall, by the trapezoidal rule, over all ranks.

    Benchmarks of instance retrieval compute it so (Philbin et al. 2007, Psomas et al. 2025): at each right picture the
    mean of the precision just before it and with it. See average_precision_at for `ranks`.
    """
    known = ranks >= 0
    ordered = np.sort(np.where(known, ranks, np.iinfo(ranks.dtype).max), axis=1)
    place = np.arange(ranks.shape[1])
    before = np.where(ordered > 0, place / np.maximum(ordered, 1), 1.0)
    areas = (before + (place + 1) / (ordered + 1.0)) / 2
    return np.where(place < known.sum(axis=1, keepdims=True), areas, 0).sum(axis=1) / known.sum(axis=1)


def recall_at(ranks: Int[np.ndarray, " q"], k: int) -> float:
    """Returns the share of queries whose truth is among the first k, in percent."""
    return float(100 * np.mean(ranks < k))


def standard_error(ranks: Int[np.ndarray, " q"], k: int) -> float:
    """Returns the binomial standard error of recall_at, in percent."""
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
    """Returns the percentile bootstrap interval of recall_at, in percent.

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
    return mean_interval(ranks < k, groups, level=level, resamples=resamples, seed=seed)


def mean_interval(
    values: Num[np.ndarray, " q"] | Bool[np.ndarray, " q"],
    groups: Sequence[int] | np.ndarray,
    *,
    level: float = 95.0,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean of values from 0 to 1, in percent; see recall_interval."""
    row = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, sizes = np.bincount(row, weights=values), np.bincount(row)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (resamples, len(sizes)))
    means = 100 * sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [50 - level / 2, 50 + level / 2])
    return float(low), float(high)


def share_interval(hits: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Returns Wilson's interval of a share, in percent: it is right for few trials and for shares near 0 and 100, too.

    Args:
      hits: how many of the trials were hits.
      total: how many trials there were.
      z: standard deviations; 1.96 is 95 % of confidence.

    Raises:
      ValueError: there were no trials, or more hits than trials.
    """
    if not 0 <= hits <= total or not total:
        raise ValueError(f"Got {hits} hits of {total}; expected at least one trial and no more hits than trials.")
    share, spread = hits / total, z * z / total
    middle, half = share + spread / 2, z * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    low, high = (float(100 * bound / (1 + spread)) for bound in (middle - half, middle + half))
    return low if hits else 0.0, high if hits < total else 100.0


def pair_accuracy(ranks: Int[np.ndarray, " q"], pair_ids: Sequence[str] | np.ndarray) -> float:
    """Returns the share of pairs both of whose queries are right, in percent; a guess reaches 25, a constant answer 0.

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
    """Returns the scores of K candidates by a whole text T and by the short sentences T_j that it consists of.

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


class Grounding(NamedTuple):
    """The scores of a phrase's map against boxes, and those of an uninformative map; all from 0 to 1."""

    pointing: float  # whether the largest patch's centre is in a box; of several largest ones, the share of them
    mass: float  # the share of the map that is inside the boxes
    pointing_chance: float  # the share of patch centres inside
    mass_chance: float  # the share of the picture's area inside


def grounding(
    values: Num[np.ndarray, "rows columns"], boxes: Num[np.ndarray, "n 4"], size: tuple[int, int]
) -> Grounding:
    """Scores a map over a picture's patches against boxes: pointing game (Zhang et al. 2016), and mass inside.

    Args:
      values: not negative, row by row; they are divided by their sum.
      boxes: left, top, right, bottom in pixels. Where they overlap, area counts once.
      size: width and height of the picture in pixels.

    Raises:
      ValueError: there is no box, a box has no area or is outside the picture, or the map is negative, not finite or
        all zero.

    Example:
      >>> grounding(np.eye(2), np.asarray([[0, 0, 8, 8]]), (16, 16))
      Grounding(pointing=0.5, mass=0.5, pointing_chance=0.25, mass_chance=0.25)
    """
    values, boxes = np.asarray(values, np.float64), np.asarray(boxes, np.float64).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    is_inside = np.all((low >= 0) & (high <= np.asarray(size)) & (low < high), axis=1)
    if not len(boxes) or not is_inside.all():
        wrong = f"the box {boxes[~is_inside][0].tolist()}" if len(boxes) else "no box"
        raise ValueError(f"Got {wrong} in a picture of {size[0]} x {size[1]}; expected left < right, top < bottom.")
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise ValueError("The map has negative, infinite or no values; expected attention, 0 or more.")
    rows, columns = values.shape
    edges = [np.linspace(0, size[1], rows + 1), np.linspace(0, size[0], columns + 1)]
    share = _covered(boxes, *edges) / (np.diff(edges[0])[:, None] * np.diff(edges[1]))
    down, right = ((edge[:-1] + edge[1:]) / 2 for edge in edges)
    centres = np.stack(np.broadcast_arrays(right, down[:, None]), -1)[:, :, None]
    hit = np.any(np.all((centres >= low) & (centres < high), axis=-1), axis=-1)
    largest = np.equal(values, values.max())
    return Grounding(
        *map(float, (hit[largest].mean(), (values / values.sum() * share).sum(), hit.mean(), share.mean()))
    )


def _covered(boxes: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the area of the union of boxes within each cell of a grid with these edges."""
    ys, xs = np.unique([*down, *boxes[:, 1], *boxes[:, 3]]), np.unique([*right, *boxes[:, 0], *boxes[:, 2]])
    y, x = (ys[:-1] + ys[1:]) / 2, (xs[:-1] + xs[1:]) / 2
    inside = (x[None, :, None] > boxes[:, 0]) & (x[None, :, None] < boxes[:, 2])
    inside = (inside & (y[:, None, None] > boxes[:, 1]) & (y[:, None, None] < boxes[:, 3])).any(-1)
    area = inside * np.diff(ys)[:, None] * np.diff(xs)
    cells = np.zeros((len(down) - 1, len(right) - 1))
    np.add.at(cells, np.ix_(np.searchsorted(down, y) - 1, np.searchsorted(right, x) - 1), area)
    return cells
