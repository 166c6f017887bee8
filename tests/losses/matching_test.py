"""Hard negatives and the losses of matching and selection, against their definitions in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.losses.matching import (
    draw_negatives,
    matching_loss,
    negative_weights,
    selection_accuracy,
    selection_loss,
    truth_loss,
)
from tests.models.context_blip_test import jit

OTHERS = ~np.eye(6, dtype=bool)
draw = jit(jax.vmap(draw_negatives, in_axes=(0, None, None)))


def softmax(x):
    x = np.asarray(x, np.float64)
    odds = np.exp(x - x.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def similarity(scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).uniform(-1, 1, (6, 6))).astype(np.float32)


# ------------------------------------------------------------------------------------------- negatives


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_weights_are_the_softmax_and_a_floor(scale):
    x = similarity(scale)
    got = np.asarray(negative_weights(jnp.asarray(x), jnp.asarray(OTHERS)))
    assert np.isfinite(got[OTHERS]).all() and np.isneginf(got[~OTHERS]).all()
    np.testing.assert_allclose(got[OTHERS], np.log(softmax(x) + 1e-4)[OTHERS], atol=2e-5)


def test_weights_stay_finite_where_all_cosines_are_extreme():
    for value in (-1e4, 1e4, -3e38, 3e38):
        got = negative_weights(jnp.full((6, 6), value, jnp.float32), jnp.asarray(OTHERS))
        np.testing.assert_allclose(got[OTHERS], np.log(1 / 6 + 1e-4), rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_draws_come_as_often_as_their_weights_say(scale):
    """Pearson's statistic of each row against the published weights, its own picture left out."""
    x, count = similarity(scale, seed=1), 30_000
    allowed = OTHERS.copy()
    allowed[0, 3] = allowed[3, 0] = False  # the same picture twice
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), count), jnp.asarray(x), jnp.asarray(allowed)))
    assert drawn.shape == (count, 6) and drawn.dtype == np.int32
    weights = np.where(allowed, softmax(x) + 1e-4, 0)
    expected = count * weights / weights.sum(-1, keepdims=True)
    for row in range(6):
        counts = np.bincount(drawn[:, row], minlength=6)
        assert not counts[~allowed[row]].any()
        often = expected[row] > 5
        statistic = ((counts - expected[row])[often] ** 2 / expected[row][often]).sum()
        assert statistic < 25, (row, counts, expected[row])  # of at most 4 degrees of freedom: once in 20,000 rows


def test_rows_are_drawn_independently():
    drawn = np.asarray(draw(jax.random.split(jax.random.key(1), 2000), jnp.zeros((6, 6)), jnp.asarray(OTHERS)))
    same_step = (drawn - np.arange(6)) % 6  # how far from its own: alike for all rows if they shared their noise
    assert 0.15 < (same_step[:, 0] == same_step[:, 1]).mean() < 0.25


def test_two_texts_are_each_others_negatives():
    drawn = draw(
        jax.random.split(jax.random.key(0), 50), jnp.asarray([[1.0, -1e4], [1e4, 1.0]]), ~jnp.eye(2, dtype=bool)
    )
    np.testing.assert_array_equal(drawn, [[1, 0]] * 50)


def test_a_row_without_a_negative_gets_its_neighbour():
    allowed = OTHERS.copy()
    allowed[[2, 5]] = False
    drawn = draw(jax.random.split(jax.random.key(0), 20), jnp.asarray(similarity()), jnp.asarray(allowed))
    np.testing.assert_array_equal(np.asarray(drawn)[:, [2, 5]], [[3, 0]] * 20)
    nothing = np.zeros((6, 6), bool)
    drawn = draw_negatives(jax.random.key(0), jnp.asarray(similarity()), jnp.asarray(nothing))
    np.testing.assert_array_equal(drawn, (np.arange(6) + 1) % 6)
    np.testing.assert_array_equal(draw_negatives(jax.random.key(0), jnp.ones((1, 1)), jnp.zeros((1, 1), bool)), [0])


# --------------------------------------------------------------------------------------------- matching


def test_matching_is_the_cross_entropy_of_two_logits():
    logits = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32) * 5
    is_match = np.arange(7) < 3
    expected = -np.log(softmax(logits))[np.arange(7), is_match.astype(int)].sum()
    np.testing.assert_allclose(matching_loss(jnp.asarray(logits), jnp.asarray(is_match)), (expected, 7), rtol=1e-5)
    certain = jnp.asarray([[1e4, -1e4]])
    assert matching_loss(certain, jnp.asarray([False])) == (0, 1)
    assert float(matching_loss(certain, jnp.asarray([True]))[0]) == 2e4  # wrong and certain: large, not infinite


# -------------------------------------------------------------------------------------------- selection


def sets(seed=0):
    """Scores, targets and which candidates are real: the first, and from none to all of the rest."""
    rng = np.random.default_rng(seed)
    valid = np.arange(5) < rng.integers(1, 6, (8, 1))
    target = rng.integers(0, valid.sum(-1))
    return rng.normal(size=(8, 5)).astype(np.float32) * 3, target.astype(np.int32), valid


@pytest.mark.parametrize("seed", range(3))
def test_selection_is_the_cross_entropy_over_the_real_candidates(seed):
    scores, target, valid = sets(seed)
    rows = [softmax(s[v])[t] for s, t, v in zip(scores, target, valid, strict=True)]
    got = selection_loss(*map(jnp.asarray, (scores, target, valid)))
    np.testing.assert_allclose(got, (-np.log(rows).sum(), 8), rtol=1e-5)
    right = sum(int(np.argmax(s[v])) == t for s, t, v in zip(scores, target, valid, strict=True))
    assert selection_accuracy(*map(jnp.asarray, (scores, target, valid))) == (right, 8)


def test_what_is_not_real_neither_gives_nor_gets_anything():
    scores, target, valid = map(jnp.asarray, sets())
    assert not valid.all()
    step = jit(jax.value_and_grad(lambda scores: selection_loss(scores, target, valid)[0]))
    value, gradient = step(scores)
    assert not np.asarray(gradient)[~valid].any()
    for other in (1e6, -1e6):
        moved, same = step(jnp.where(valid, scores, other))
        np.testing.assert_allclose(moved, value, rtol=1e-6)
        np.testing.assert_allclose(same, gradient, atol=1e-6)
        np.testing.assert_array_equal(
            selection_accuracy(jnp.where(valid, scores, other), target, valid),
            selection_accuracy(scores, target, valid),
        )


def test_the_first_of_equal_scores_is_picked():
    """Training counts as evaluation does, so that a model with equal scores looks no better in training."""
    scores, valid = jnp.zeros((5, 5)), jnp.ones((5, 5), bool)
    assert selection_accuracy(scores, jnp.arange(5), valid) == (1, 5)


def test_the_truth_loss_is_the_cross_entropy_of_each_candidate():
    """In float64, from nearly impossible to nearly certain; candidates that are not valid count for nothing."""
    rng = np.random.default_rng(0)
    log_probability = -np.exp(rng.uniform(-9, 4, size=(40, 6)))
    target, valid = rng.integers(0, 6, 40), rng.random((40, 6)) < 0.7
    is_target = np.arange(6) == target[:, None]
    expected = -np.where(is_target, log_probability, np.log(-np.expm1(log_probability)))
    total, count = truth_loss(jnp.asarray(log_probability), jnp.asarray(target), jnp.asarray(valid))
    np.testing.assert_allclose(total, expected[valid].sum(), rtol=1e-5)
    assert count == valid.sum()
    by_logit = jax.grad(lambda z: truth_loss(jax.nn.log_sigmoid(z), jnp.asarray([0]), jnp.ones((1, 2), bool))[0])
    for logit in (-20.0, 0.0, 10.0, 20.0, 40.0):  # the gradient of a sigmoid's cross-entropy, however wrong it is
        got = by_logit(jnp.asarray([[logit, logit]]))[0]
        p = 1 / (1 + math.exp(-logit))
        np.testing.assert_allclose(got, [p - 1, p], rtol=1e-4, atol=1e-6)
    slope = jax.grad(lambda x: truth_loss(x, jnp.asarray(target), jnp.asarray(valid))[0])
    assert np.isfinite(slope(jnp.asarray(log_probability))).all() and np.isfinite(slope(jnp.zeros((40, 6)))).all()
