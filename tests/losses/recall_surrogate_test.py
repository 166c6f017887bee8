"""The Recall@K surrogate against a plain float64 form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.losses.recall_surrogate import recall_surrogate_loss

KS = (1, 2, 4, 8, 16)


def plain(query, target, valid, same, cutoffs=KS, tau1=1.0, tau2=0.01):
    sigmoid = lambda x: 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    scores, losses = query.astype(np.float64) @ target.astype(np.float64).T, []
    for i in np.flatnonzero(valid):
        others = [j for j in np.flatnonzero(valid) if j != i and not same[i, j]]
        rank = sum(sigmoid((scores[i, j] - scores[i, i]) / tau2) for j in others)
        losses.append(1 - np.mean([sigmoid((k - 1 - rank) / tau1) for k in cutoffs]))
    return sum(losses), len(losses)


def unit(seed, count=9, width=5):
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("masks", [False, True])
def test_it_is_the_plain_form_with_padding_and_copies(masks):
    query, target = unit(0), unit(1)
    valid, ids = np.arange(9) != 4, np.asarray([0, 1, 2, 3, 4, 5, 0, 7, 1])
    same = (ids[:, None] == ids) & masks
    total, count = recall_surrogate_loss(
        jnp.asarray(query), jnp.asarray(target), valid=jnp.asarray(valid), target_ids=jnp.asarray(ids),
        mask_false_negatives=masks,
    )  # fmt: skip
    expected, rows = plain(query, target, valid, same)
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert count == rows == 8


def test_its_gradient_raises_the_recall():
    query, target, ids = jnp.asarray(unit(2)), jnp.asarray(unit(3)), jnp.arange(9)

    def loss(query):
        query = query / jnp.linalg.norm(query, axis=-1, keepdims=True)
        return recall_surrogate_loss(query, target, valid=ids >= 0, target_ids=ids, rank_temperature=0.1)[0]

    step, before = jax.jit(jax.value_and_grad(loss)), float(loss(query))
    for _ in range(50):
        value, gradient = step(query)
        query = query - 0.05 * gradient
    assert np.isfinite(gradient).all() and value < 0.8 * before
