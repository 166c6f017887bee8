"""HN-NCE against eight lines of numpy in float64, in all forms, and what must not change it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.losses.contrastive import contrastive_loss
from contextjax.losses.hard_negative import hard_negative_loss
from contextjax.sharding import make_mesh, map_over_devices, place_batch
from tests.losses.contrastive_test import unit

TAU = 0.2


def written_out(query, target, alpha=1.0, beta=0.5):
    """Every row is valid and has a picture of its own."""
    total = 0.0
    for s in (query @ target.T / TAU, target @ query.T / TAU):
        negatives = ~np.eye(len(s), dtype=bool)
        weights = np.exp(beta * s) * negatives
        weights = (len(s) - 1) * weights / weights.sum(1, keepdims=True) + alpha * np.eye(len(s))
        total += (np.log((weights * np.exp(s)).sum(1)) - np.diag(s)).sum()
    return total


def example(seed, n=8, d=5):
    rng = np.random.default_rng(seed)
    return [0.9 * unit(rng, n, d), 0.7 * unit(rng, n, d)]


def loss_of(query, target, **options):
    ids = jnp.arange(len(query))
    options = {"valid": ids >= 0, "target_ids": ids, "temperature": TAU} | options
    return hard_negative_loss(jnp.asarray(query, jnp.float32), jnp.asarray(target, jnp.float32), **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (1.0, 0.0), (0.3, 1.5)])
def test_it_is_the_definition(seed, alpha, beta):
    x = example(seed)
    got = loss_of(*x, alpha=alpha, beta=beta)
    np.testing.assert_allclose(got, (written_out(*x, alpha, beta), 8), rtol=3e-6)


def test_gradients_are_those_of_the_definition():
    x = example(3)
    for place in (0, 1):
        gradient = jax.grad(lambda y, place=place: loss_of(*(y if i == place else x[i] for i in (0, 1)))[0])(
            jnp.asarray(x[place], jnp.float32)
        )
        expected = np.zeros_like(x[place])
        for index in np.ndindex(*expected.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [each.copy() for each in x]
                moved[place][index] += step
                ends.append(written_out(*moved))
            expected[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.abs(expected).max())


def test_without_harder_negatives_it_is_twice_infonce():
    x = [jnp.asarray(each, jnp.float32) for each in example(4)]
    options = {"temperature": TAU, "valid": jnp.arange(8) != 3, "target_ids": jnp.arange(8) // 2}
    for mask in (False, True):
        once, count = contrastive_loss(*x, **options, mask_false_negatives=mask)
        twice, rows = hard_negative_loss(*x, **options, beta=0.0, mask_false_negatives=mask)
        np.testing.assert_allclose((twice, rows), (2 * once, count), rtol=3e-6)


@pytest.mark.long
def test_what_is_left_out_is_as_if_it_were_not_there():
    """Padding rows, and other copies of the positive; a row without any negative has a loss of zero."""
    query, target = example(5)
    kept = np.asarray([0, 1, 4, 6])
    expected = written_out(query[kept], target[kept])
    valid = jnp.zeros(8, bool).at[kept].set(True)
    np.testing.assert_allclose(loss_of(query, target, valid=valid), (expected, 4), rtol=3e-6)
    copies = jnp.asarray([0, 0, 1, 1])
    found, _ = loss_of(query[:4], target[:4], target_ids=copies, mask_false_negatives=True)
    each = [[0, 2], [0, 3], [1, 2], [1, 3]]  # by hand: two negatives a row
    total = 0.0
    for s in (query[:4] @ target[:4].T / TAU, target[:4] @ query[:4].T / TAU):
        for i in range(4):
            others = s[i, [j for j in range(4) if copies[j] != copies[i]]]
            weights = 2 * np.exp(others / 2) / np.exp(others / 2).sum()
            total += np.log(np.exp(s[i, i]) + (weights * np.exp(others)).sum()) - s[i, i]
    np.testing.assert_allclose(found, total, rtol=3e-6)
    assert len(each) == 4
    assert loss_of(query[:1], target[:1]) == (0.0, 1.0)
    gradient = jax.grad(lambda q: loss_of(q, target, valid=jnp.zeros(8, bool))[0])(jnp.asarray(query, jnp.float32))
    assert not np.asarray(gradient).any()


def test_a_low_temperature_does_not_overflow():
    x = example(6)
    total, _ = loss_of(x[0], x[0], temperature=1e-3)
    assert np.isfinite(total)


@pytest.mark.long
@pytest.mark.parametrize("form", ["gathered", "chunked", "ring"])
@pytest.mark.parametrize("mask", [False, True])
def test_eight_devices_give_the_numbers_of_one(form, mask):
    query, target = (jnp.asarray(x, jnp.float32) for x in example(7, n=16))
    options = {"temperature": jnp.float32(TAU), "valid": jnp.arange(16) != 9, "target_ids": jnp.arange(16) // 2 * 2}
    one = lambda q, t: hard_negative_loss(q, t, **options, mask_false_negatives=mask)[0]
    expected = jax.jit(jax.value_and_grad(one, argnums=(0, 1)))(query, target)
    mesh = make_mesh("data:8")
    if form == "gathered":
        body = hard_negative_loss
    else:
        body = map_over_devices(functools.partial(hard_negative_loss, form=form, chunk=1), mesh)
    many = lambda q, t, options: body(q, t, **options, mask_false_negatives=mask)[0]
    placed = place_batch(jax.tree.map(np.asarray, (query, target)), mesh)
    cut = {
        "temperature": options["temperature"],
        **{k: place_batch(np.asarray(options[k]), mesh) for k in ("valid", "target_ids")},
    }
    found = jax.jit(jax.value_and_grad(many, argnums=(0, 1)))(*placed, cut)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
