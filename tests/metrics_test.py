"""Ranks by hand and by brute force."""

import tracemalloc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from contextjax import metrics
from contextjax.metrics import (
    average_precision,
    average_precision_at,
    combine_propositions,
    cosines,
    pair_accuracy,
    rank_gallery,
    rank_of_truth,
    recall_at,
    recall_interval,
    share_interval,
    standard_error,
    top_k,
)

INF = np.inf


@pytest.mark.parametrize(
    ("scores", "truth", "rank"),
    [
        ([0.1, 0.9, 0.5], 1, 0),
        ([0.1, 0.9, 0.5], 2, 1),
        ([0.1, 0.9, 0.5], 0, 2),
        ([0.5, 0.5, 0.5], 0, 0),  # ties: the earlier one is better
        ([0.5, 0.5, 0.5], 2, 2),
        ([0.5, 0.9, 0.5], 2, 2),
        ([-INF, 0.2, 0.1], 1, 0),  # what may not be returned is last
        ([-INF, 0.2, 0.1], 2, 1),
        ([-INF, 0.2, 0.1], 0, 2),
        ([0.3], 0, 0),
    ],
)
def test_rank_by_hand(scores, truth, rank):
    assert rank_of_truth(np.asarray([scores]), np.asarray([truth])).tolist() == [rank]


@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_and_top_are_those_of_a_sort(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (40, 12)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -INF
    truth = rng.integers(0, 12, 40)
    ranks = rank_of_truth(scores, truth)
    for row, true, rank in zip(scores, truth, ranks, strict=True):
        order = sorted(range(12), key=lambda i: (-row[i], i))
        assert order.index(true) == rank
    best = top_k(scores, 5)
    assert best.shape == (40, 5)
    for k in range(5):
        np.testing.assert_array_equal((best[:, : k + 1] == truth[:, None]).any(1), ranks <= k)


def test_top_of_a_small_gallery_is_all_of_it():
    assert top_k(np.asarray([[0.1, 0.2]]), 10).tolist() == [[1, 0]]


def test_a_score_that_is_not_a_number_is_never_a_hit():
    """A diverged system must not look perfect."""
    scores = np.asarray([[np.nan] * 4, [0.1, np.nan, 0.2, 0.3]])
    with np.errstate(invalid="ignore"):
        try:
            ranks = rank_of_truth(scores, np.asarray([2, 1]))
        except ValueError:
            return
    assert (ranks > 0).all()


def test_recall_and_its_error():
    ranks = np.asarray([0, 0, 1, 4, 9])
    assert [recall_at(ranks, k) for k in (1, 2, 5, 10)] == pytest.approx([40, 60, 80, 100])
    assert standard_error(ranks, 1) == pytest.approx(100 * np.sqrt(0.4 * 0.6 / 5))
    assert standard_error(ranks, 10) == 0


def test_the_interval_is_that_of_the_binomial_where_every_query_is_its_own_group():
    ranks = (np.random.default_rng(0).random(900) < 0.7).astype(int)  # right at about 30 %
    low, high = recall_interval(ranks, 1, range(900))
    recall, error = recall_at(ranks, 1), standard_error(ranks, 1)
    assert (low, high) == pytest.approx((recall - 1.96 * error, recall + 1.96 * error), abs=0.4)
    assert recall_interval(ranks, 1, range(900)) == (low, high) != recall_interval(ranks, 1, range(900), seed=1)
    narrow = recall_interval(ranks, 1, range(900), level=50.0)
    assert low < narrow[0] < recall < narrow[1] < high


def test_the_interval_resamples_groups():
    """Four queries that succeed and fail together tell as much as one."""
    ranks = (np.random.default_rng(0).random(300) < 0.7).astype(int)
    assert recall_interval(np.repeat(ranks, 4), 1, np.repeat(np.arange(300), 4)) == recall_interval(
        ranks, 1, np.arange(300)
    )
    mixed = np.tile([0, 1], 300)  # every group of two has one hit: nothing varies between groups
    assert recall_interval(mixed, 1, np.repeat(np.arange(300), 2)) == (50, 50)


def test_the_interval_of_unequal_groups_is_that_of_a_plain_loop():
    ranks, groups = np.asarray([0, 0, 1, 1, 1, 0]), np.asarray([7, 7, 7, 3, 3, 5])
    members = [np.flatnonzero(groups == name) for name in (3, 5, 7)]
    drawn = np.random.default_rng(4).integers(0, 3, (50, 3))
    recalls = [recall_at(ranks[np.concatenate([members[i] for i in row])], 1) for row in drawn]
    expected = np.percentile(recalls, [2.5, 97.5])
    assert recall_interval(ranks, 1, groups, resamples=50, seed=4) == pytest.approx(tuple(expected))


def test_a_pair_counts_only_if_both_are_right():
    ranks, pairs = np.asarray([0, 0, 1, 0, 1, 1, 0, 0]), ["b", "a", "c", "c", "d", "d", "a", "b"]
    assert pair_accuracy(ranks, pairs) == 50
    assert pair_accuracy(ranks[::-1], pairs[::-1]) == 50
    assert pair_accuracy(np.tile([0, 1], 5), np.repeat(np.arange(5), 2)) == 0  # always the same answer
    assert pair_accuracy(np.zeros(4, int), np.asarray([1, 2, 1, 2])) == 100


def test_a_guess_reaches_a_quarter_of_the_pairs():
    ranks = np.random.default_rng(0).integers(0, 2, 8000)
    assert pair_accuracy(ranks, np.repeat(np.arange(4000), 2)) == pytest.approx(25, abs=2)


@pytest.mark.parametrize("pairs", [["a", "a", "b"], ["a"], ["a", "a", "a"], []])
def test_broken_pairs_are_told(pairs):
    with pytest.raises(ValueError, match="Expected two queries of every pair"):
        pair_accuracy(np.zeros(len(pairs), int), pairs)


@pytest.mark.parametrize("seed", range(5))
def test_propositions_are_combined_as_in_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    sentences, candidates = int(rng.integers(1, 7)), int(rng.integers(2, 11))
    full, parts = rng.normal(size=candidates), rng.normal(size=(sentences, candidates))
    negated, weights, share = rng.random(sentences) < 0.4, rng.random(sentences), rng.random()
    for given in (weights, None):
        expected = [
            share * full[k]
            + (1 - share)
            * sum(
                (1 / sentences if given is None else given[j]) * (-parts[j, k] if negated[j] else parts[j, k])
                for j in range(sentences)
            )
            for k in range(candidates)
        ]
        np.testing.assert_allclose(combine_propositions(full, parts, negated, given, share), expected, atol=1e-12)
    np.testing.assert_array_equal(combine_propositions(full, parts, negated, share=1.0), full)
    flipped = combine_propositions(full, parts, ~negated, weights, 0.0)
    np.testing.assert_allclose(flipped, -combine_propositions(full, parts, negated, weights, 0.0))


def test_a_negated_proposition_speaks_against_what_it_fits():
    full, hat = np.zeros(3, np.float32), np.asarray([[0.1, 0.9, 0.2]], np.float32)
    assert combine_propositions(full, hat, np.asarray([False])).argmax() == 1
    found = combine_propositions(full, hat, np.asarray([True]))
    assert found.argmax() == 0 and found.argmin() == 1 and found.dtype == np.float32


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_missing_candidate_stays_missing(share):
    full, parts = np.asarray([1.0, -INF, 2.0]), np.asarray([[1.0, -INF, 3.0], [2.0, -INF, 1.0]])
    found = combine_propositions(full, parts, np.asarray([True, False]), share=share)
    assert found[1] == -INF and np.isfinite(found[[0, 2]]).all()


def test_without_propositions_the_whole_text_decides():
    full = np.asarray([0.5, 0.2])
    np.testing.assert_array_equal(combine_propositions(full, np.zeros((0, 2)), np.zeros(0, bool), share=0.3), full)


def test_a_share_beyond_the_whole_is_told():
    with pytest.raises(ValueError, match=r"share of the whole text is 1\.5"):
        combine_propositions(np.zeros(2), np.zeros((1, 2)), np.zeros(1, bool), share=1.5)


# ------------------------------------------------------------------------------- average precision


@hypothesis.given(
    st.integers(1, 12).flatmap(lambda size: st.tuples(st.permutations(range(size)), st.integers(1, size))),
    st.integers(1, 15),
    st.integers(0, 3),
)
def test_average_precision_is_what_its_definition_says(drawn, k, padding):
    """AP@K = (1 / min(|G|, K)) sum over k <= K of P(k) rel(k), by a loop over the predictions."""
    predictions, count = drawn
    truths = set(range(count))
    relevant = [name in truths for name in predictions[:k]]
    expected = sum(sum(relevant[: i + 1]) / (i + 1) for i, hit in enumerate(relevant) if hit) / min(count, k)
    ranks = np.asarray([[predictions.index(name) for name in truths] + [-1] * padding])
    assert average_precision_at(ranks, k)[0] == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand():
    ranks = np.asarray([[0, 2, -1], [4, 1, 9], [3, -1, -1]])
    np.testing.assert_allclose(average_precision_at(ranks, 5), [(1 + 2 / 3) / 2, (1 / 2 + 2 / 5) / 3, 1 / 4])
    np.testing.assert_allclose(average_precision_at(ranks, 2), [1 / 2, 1 / 2 / 2, 0])
    np.testing.assert_allclose(average_precision_at(ranks[2:], 1), [0])


def test_average_precision_is_the_area_by_the_trapezoidal_rule():
    """Recall rises by 1 / T at each right picture; the precision there is the mean of before and after it."""
    ranks = np.asarray([[0, 2, -1], [3, -1, -1], [1, 0, 2], [4, 1, -1]])
    expected = [(1 + (1 / 2 + 2 / 3) / 2) / 2, (0 + 1 / 4) / 2, 1, ((0 + 1 / 2) / 2 + (1 / 4 + 2 / 5) / 2) / 2]
    np.testing.assert_allclose(average_precision(ranks), expected)


# ----------------------------------------------------------------------------------- whole galleries


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_a_gallery_in_chunks_is_ranked_as_the_whole(data):
    """Also where pictures are there twice, so that scores tie across chunks; the reference is a sort in Python."""
    count, queries, width = (data.draw(st.integers(1, n)) for n in (30, 5, 70))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    gallery = unit(rng, count, width)[rng.integers(0, count, count)]
    asked = unit(rng, queries, width)
    truths = rng.integers(-1, count, (queries, 3))
    excluded = rng.integers(-1, count, queries)
    keep, chunk = data.draw(st.integers(1, 35)), data.draw(st.integers(1, 31))
    found = rank_gallery(asked, gallery, truths, excluded=excluded, keep=keep, chunk=chunk)
    whole = rank_gallery(asked, gallery, truths, excluded=excluded, keep=keep, chunk=count)
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    for query in range(queries):
        scores = [cosines(asked[query : query + 1], gallery, np.asarray([row]))[0] for row in range(count)]
        if excluded[query] >= 0:
            scores[excluded[query]] = -INF
        order = sorted(range(count), key=lambda row: (-scores[row], row))
        assert found.top[query].tolist() == order[:keep]
        np.testing.assert_array_equal(found.scores[query], np.asarray(scores, np.float32)[order[:keep]])
        assert found.ranks[query].tolist() == [order.index(truth) if truth >= 0 else -1 for truth in truths[query]]


def test_scores_of_a_gallery_are_cosines_and_equal_pictures_tie_to_the_last_bit():
    rng = np.random.default_rng(0)
    picture, queries = unit(rng, 1, 700), unit(rng, 64, 700)
    gallery = np.repeat(picture, 50, axis=0)
    found = rank_gallery(queries, gallery, np.full((64, 1), 49), keep=50, chunk=7)
    np.testing.assert_array_equal(found.top, np.tile(np.arange(50), (64, 1)))
    assert (found.ranks == 49).all()
    np.testing.assert_allclose(found.scores[:, 0], (queries.astype(np.float64) @ picture[0]), atol=1e-7)


def test_a_diverged_system_finds_nothing_in_a_gallery():
    gallery, queries = np.full((5, 2), np.nan, np.float32), np.ones((1, 2), np.float32)
    found = rank_gallery(queries, gallery, np.asarray([[0]]), keep=2, chunk=2)
    assert found.ranks.tolist() == [[5]] and not np.isfinite(found.scores).any()


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.sampled_from([-INF, np.nan, 0.0, 0.5, 1.0]), min_size=1, max_size=12), st.integers(1, 14))
def test_the_best_are_those_of_a_sort(scores, k):
    order = sorted(range(len(scores)), key=lambda i: (INF if np.isnan(scores[i]) else -scores[i], i))
    assert top_k(np.asarray([scores]), k).tolist() == [order[:k]]


@pytest.mark.slow
def test_a_million_pictures_are_ranked_in_little_memory():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(1_000_000, 64)).astype(np.float32) / 8, unit(rng, 512, 64)
    truths = rng.integers(0, len(gallery), (512, 2))
    tracemalloc.start()
    try:
        found = rank_gallery(queries, gallery, truths, keep=50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"peak beside the embeddings: {peak / 2**20:.0f} MiB")
    assert peak < 100 * 2**20  # [Q, G] would be 2,000 MiB of float32
    first = np.sort(-(queries[:1].astype(np.float64) @ gallery.T.astype(np.float64))[0])
    np.testing.assert_allclose(found.scores[0], -first[:50], atol=1e-6)


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (1, 1), (0, 20), (7, 9), (450, 500), (500, 500)])
def test_wilsons_interval_holds_the_shares_that_are_near_enough(hits, total):
    """The bounds are the shares p that lie z standard errors, of p itself, from the observed share."""
    low, high = share_interval(hits, total)
    for bound in (low / 100, high / 100):
        assert 0 <= bound <= 1
        if 0 < bound < 1:
            error = np.sqrt(bound * (1 - bound) / total)
            assert abs(hits / total - bound) == pytest.approx(1.96 * error, rel=1e-6)
    assert low <= 100 * hits / total <= high
    assert (low == 0) == (hits == 0) and (high == 100) == (hits == total)


def test_an_interval_needs_trials():
    for hits, total in ((0, 0), (2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="expected at least one trial"):
            share_interval(hits, total)


def test_grounding_is_what_counting_pixels_gives():
    """Boxes at whole pixels, counted one by one; they may overlap and cross patches."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        width, height, rows, columns = 24, 40, int(rng.choice([2, 4, 5, 8])), int(rng.choice([2, 3, 4, 6]))
        corners = [
            np.sort(rng.choice(size + 1, 2, replace=False)) for size in (width, height) * int(rng.integers(1, 4))
        ]
        boxes = np.asarray([[x[0], y[0], x[1], y[1]] for x, y in zip(corners[::2], corners[1::2], strict=True)])
        pixels = np.zeros((height, width))
        for left, top, right, bottom in boxes:
            pixels[top:bottom, left:right] = 1
        values = rng.integers(0, 4, (rows, columns)) + (np.arange(rows * columns).reshape(rows, columns) == 0)
        tall, wide = height // rows, width // columns
        share = pixels.reshape(rows, tall, columns, wide).mean((1, 3))
        hit = np.zeros((rows, columns), bool)
        for row, column in np.ndindex(rows, columns):
            y, x = (row + 0.5) * tall, (column + 0.5) * wide
            hit[row, column] = any(b[0] <= x < b[2] and b[1] <= y < b[3] for b in boxes)
        found = metrics.grounding(values, boxes, (width, height))
        expected = hit[values == values.max()].mean(), (values * share).sum() / values.sum(), hit.mean(), pixels.mean()
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "boxes", "sentence"),
    [
        (np.ones((2, 2)), np.zeros((0, 4)), "no box in a picture of 16 x 16"),
        (np.ones((2, 2)), [[0, 0, 17, 8]], r"the box \[0.0, 0.0, 17.0, 8.0\]"),
        (np.ones((2, 2)), [[0, 0, 8, 8], [4, 4, 4, 8]], r"the box \[4.0, 4.0"),
        (np.zeros((2, 2)), [[0, 0, 8, 8]], "The map has"),
        (-np.ones((2, 2)), [[0, 0, 8, 8]], "The map has"),
    ],
)
def test_what_cannot_be_grounded_is_refused(values, boxes, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.grounding(values, np.asarray(boxes, float), (16, 16))


@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_of_several_vectors_the_best_pair_counts_and_means_are_scored_by_their_product(chunk):
    """ "Max over tokens" and "mean", CoVR-2's two protocols, in plain loops."""
    rng = np.random.default_rng(4)
    asked, gallery = unit(rng, 6, 3, 8), unit(rng, 11, 3, 8)
    truths, excluded = rng.integers(0, 11, (6, 2)), rng.integers(-1, 11, 6)
    options = {"excluded": excluded, "keep": 4, "chunk": chunk}
    pairs = np.einsum("qid,gjd->qgij", asked, gallery)
    for found, scores in (
        (rank_gallery(asked, gallery, truths, **options), pairs.max(axis=(2, 3))),
        (rank_gallery(asked.mean(1), gallery.mean(1), truths, **options), pairs.mean(axis=(2, 3))),
    ):
        scores[np.arange(6), excluded] = np.where(excluded >= 0, -INF, scores[np.arange(6), excluded])
        order = np.argsort(-scores, axis=1, kind="stable")
        np.testing.assert_array_equal(found.top, order[:, :4])
        np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order[:, :4], axis=1), atol=1e-6)
        np.testing.assert_array_equal(
            found.ranks, [[list(o).index(t) for t in own] for o, own in zip(order, truths, strict=True)]
        )
