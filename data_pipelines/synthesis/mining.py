"""Groups of pictures that are alike, from the embeddings of unlabelled ones: neither near-duplicates nor strangers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from contextjax.types import UserError

GRID = 2.0**20  # embeddings are compared as multiples of 1 / GRID: sums of their products are exact in any order
Bin = tuple[float, list[tuple[int, int, float]]]
SAMPLED = 2000  # pictures whose similarities are counted


@dataclasses.dataclass(frozen=True)
class Band:
    """The cosines that two pictures of a group may have."""

    low: float
    high: float

    def __post_init__(self):
        if not -1 <= self.low < self.high <= 1:
            raise UserError(f"The similarity band is {self.low:g} to {self.high:g}; expected -1 <= low < high <= 1.")


def on_grid(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings as they are compared: float64 [N, D], L2-normalised."""
    found = np.asarray(embeddings, np.float64)
    return np.rint(found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12) * GRID) / GRID


def mine_groups(embeddings: np.ndarray, band: Band, *, size: int = 6, seed: int = 0) -> list[tuple[int, ...]]:
    """Groups of `size` pictures, any two of which are within the band; no picture is in two groups.

    Pictures are tried as the first of a group in an order drawn by `seed`; the others are those most like it that are
    within the band of all before them. Each that is tried first is compared with every picture: N² cosines at most.

    Args:
      embeddings: [N, D] of the pictures.
      band: of cosines.
      size: of a group, two or more.
      seed: of the order.

    Returns:
      Rows of the pictures, by group.
    """
    if size < 2:
        raise UserError(f"A group has {size} pictures; expected 2 or more.")
    rows = on_grid(embeddings)
    free = np.ones(len(rows), bool)
    groups = []
    for first in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if not free[first]:
            continue
        group = _group_of(first, rows, free, band, size)
        if len(group) == size:
            free[group] = False
            groups.append(tuple(group))
        else:
            free[first] = False  # no later group could take it and be whole with the pictures that are left
    return groups


def _group_of(first: int, rows: np.ndarray, free: np.ndarray, band: Band, size: int) -> list[int]:
    cosines = rows @ rows[first]  # of all: taking the free rows out would copy them each time
    others = np.flatnonzero(free & (cosines >= band.low) & (cosines <= band.high))
    group = [first]
    for row in others[np.argsort(-cosines[others], kind="stable")].tolist():
        if row == first:
            continue
        between = rows[group] @ rows[row]
        if (between >= band.low).all() and (between <= band.high).all():
            group.append(row)
            if len(group) == size:
                break
    return group


def sample_pairs(embeddings: np.ndarray, *, per_bin: int, edges: Sequence[float], seed: int = 0) -> list[Bin]:
    """Pairs of pictures by how alike they are, to judge a band by.

    Args:
      embeddings: [N, D].
      per_bin: pairs of each bin.
      edges: cosines between the bins, ascending: bins are what is below the first, between two, and above the last.
      seed: of what is drawn, among at most SAMPLED pictures.

    Returns:
      For each bin (its share of the sampled pairs, [(row, row, cosine)]).
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(embeddings))[:SAMPLED])
    vectors = on_grid(np.asarray(embeddings)[rows])
    one, other = np.triu_indices(len(rows), 1)
    cosines = (vectors @ vectors.T)[one, other]
    bins = np.searchsorted(np.asarray(edges), cosines, side="right")
    found = []
    for bin in range(len(edges) + 1):
        inside = np.flatnonzero(bins == bin)
        drawn = np.sort(rng.permutation(len(inside))[:per_bin])
        picked = [(int(rows[one[i]]), int(rows[other[i]]), float(cosines[i])) for i in inside[drawn]]
        found.append((len(inside) / max(len(cosines), 1), picked))
    return found
