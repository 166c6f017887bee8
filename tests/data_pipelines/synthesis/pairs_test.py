"""Groups are mutually alike, disjoint, reproducible, and do not depend on how sums are made."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax.types import UserError
from data_pipelines.synthesis.pairs import SimilarityBand, grouped_pairs, mine_groups, on_grid, sample_pairs


def clouds(count, width, seed):
    """Points around a few centres: some pairs are near, some far."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, count // 8), width))
    return centres[rng.integers(len(centres), size=count)] + rng.normal(0, 0.5, (count, width))


def by_hand(embeddings, band, size, seed):
    """The same rule in plain loops over exact whole numbers."""
    rows = [[int(x * 2**20) for x in row] for row in on_grid(embeddings).tolist()]
    cosine = lambda i, j: sum(x * y for x, y in zip(rows[i], rows[j], strict=True)) / 2**40
    inside = lambda i, j: band.low <= cosine(i, j) <= band.high
    free, groups = set(range(len(rows))), []
    for first in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if first not in free:
            continue
        group = [first]
        for other in sorted(free - {first}, key=lambda j: (-cosine(first, j), j)):
            if len(group) < size and all(inside(other, member) for member in group):
                group.append(other)
        free -= set(group) if len(group) == size else {first}
        if len(group) == size:
            groups.append(tuple(group))
    return groups


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 99), st.sampled_from([(0.3, 0.95), (0.7, 0.9)]))
def test_groups_are_those_of_plain_loops(count, size, seed, bounds):
    embeddings, band = clouds(count, 6, seed), SimilarityBand(*bounds)
    groups = mine_groups(embeddings, band, size=size, seed=seed)
    assert groups == by_hand(embeddings, band, size, seed)
    used = [row for group in groups for row in group]
    assert len(used) == len(set(used))
    cosines = on_grid(embeddings) @ on_grid(embeddings).T
    for group in groups:
        assert all(band.low <= cosines[i, j] <= band.high for i, j in itertools.combinations(group, 2))


def test_float32_in_any_order_of_columns_gives_the_same_groups():
    embeddings = clouds(60, 16, 3).astype(np.float32)
    groups = mine_groups(embeddings, SimilarityBand(0.4, 0.97), size=3, seed=1)
    assert groups and groups == mine_groups(embeddings[:, ::-1].copy(), SimilarityBand(0.4, 0.97), size=3, seed=1)
    assert groups != mine_groups(embeddings, SimilarityBand(0.4, 0.97), size=3, seed=2)


def test_examples_are_of_their_bins_and_shares_add_up():
    embeddings, edges = clouds(50, 8, 0), [0.2, 0.5, 0.9]
    found = sample_pairs(embeddings, per_bin=7, edges=edges, seed=0)
    assert sum(share for share, _ in found) == pytest.approx(1)
    cosines = on_grid(embeddings) @ on_grid(embeddings).T
    for (low, high), (share, pairs) in zip(itertools.pairwise([-1.1, *edges, 1.1]), found, strict=True):
        upper = cosines[np.triu_indices(50, 1)]
        assert share == pytest.approx(np.mean((upper >= low) & (upper < high)))
        assert len(pairs) == min(7, round(share * len(upper)))
        assert all(low <= value < high and value == cosines[i, j] for i, j, value in pairs)


@hypothesis.given(st.integers(2, 7), st.integers(1, 9))
def test_every_member_is_as_often_a_target_as_a_reference(size, targets):
    group = tuple("abcdefg"[:size])
    pairs = grouped_pairs([group], targets=targets)
    count = min(targets, size - 1)
    for name in group:
        assert sum(pair.reference == name for pair in pairs) == sum(pair.target == name for pair in pairs) == count
    assert all(pair.reference != pair.target and {pair.reference, pair.target} <= set(group) for pair in pairs)
    assert len({(pair.reference, pair.target) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("bounds", [(0.9, 0.2), (-2.0, 0.5), (0.5, 0.5)])
def test_a_band_is_two_cosines(bounds):
    with pytest.raises(UserError, match="expected -1 <= low < high <= 1"):
        SimilarityBand(*bounds)
