"""The contrastive loss against its definition in float64, and what must not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.losses.contrastive import contrastive_loss, recall_at_one

TAU = 0.2


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def example(seed=0, n=7, m=4, d=5):
    """Random embeddings; rows 2 and 5 are invalid, targets 0 and 3 are one picture, which is also negative 1."""
    rng = np.random.default_rng(seed)
    valid = np.ones(n, bool)
    valid[[2, 5]] = False
    target_ids = np.arange(n) + 10
    target_ids[3] = target_ids[0]
    negative_ids = np.arange(m)
    negative_ids[1] = target_ids[0]
    return {
        "query": unit(rng, n, d),
        "target": unit(rng, n, d),
        "negatives": unit(rng, m, d),
        "valid": valid,
        "target_ids": target_ids,
        "negative_ids": negative_ids,
    }


def cross_entropy(scores):
    """scores[0] is the positive's."""
    return np.log(np.exp(np.asarray(scores) - scores[0]).sum())


def written_out(query, target, valid, target_ids, negatives, negative_ids, mask):
    """Row by row, candidate by candidate: only real rows ask and only real rows are candidates."""
    total = 0.0
    rows = np.flatnonzero(valid)
    for i in rows:
        others = [j for j in rows if j != i and not (mask and target_ids[j] == target_ids[i])]
        pure = [k for k in range(len(negatives)) if not (mask and negative_ids[k] == target_ids[i])]
        positive = query[i] @ target[i] / TAU
        forward = [positive, *(query[i] @ target[j] / TAU for j in others)]
        forward += [query[i] @ negatives[k] / TAU for k in pure]
        backward = [positive, *(query[j] @ target[i] / TAU for j in others)]
        total += (cross_entropy(forward) + cross_entropy(backward)) / 2
    return total, len(rows)


def loss_of(x, *, mask=False, with_negatives=True):
    arrays = {name: jnp.asarray(value, jnp.float32 if value.dtype == float else None) for name, value in x.items()}
    query, target = arrays.pop("query"), arrays.pop("target")
    if not with_negatives:
        del arrays["negatives"], arrays["negative_ids"]
    return contrastive_loss(query, target, temperature=TAU, mask_false_negatives=mask, **arrays)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("with_negatives", [False, True])
def test_it_is_the_definition(seed, mask, with_negatives):
    x = example(seed)
    total, count = loss_of(x, mask=mask, with_negatives=with_negatives)
    if not with_negatives:
        x["negatives"] = x["negatives"][:0]
    expected = written_out(**x, mask=mask)
    np.testing.assert_allclose((total, count), expected, rtol=2e-6)


def test_all_rows_valid_is_the_textbook_form():
    x = example()
    x["valid"][:] = True
    q, t, r = x["query"], x["target"], x["negatives"]
    forward = np.concatenate([q @ t.T, q @ r.T], axis=1) / TAU
    backward = t @ q.T / TAU
    log_softmax = lambda s: s - np.log(np.exp(s).sum(1, keepdims=True))
    expected = -(np.diag(log_softmax(forward)) + np.diag(log_softmax(backward))).sum() / 2
    np.testing.assert_allclose(loss_of(x), (expected, 7), rtol=2e-6)


@pytest.mark.parametrize("mask", [False, True])
def test_gradients_are_those_of_the_definition(mask):
    x = example(2)
    for name in ("query", "target", "negatives"):
        gradient = jax.grad(lambda value, name=name: loss_of(x | {name: value}, mask=mask)[0])(
            jnp.asarray(x[name], jnp.float32)
        )
        expected = np.zeros_like(x[name])
        for index in np.ndindex(*expected.shape):
            moved = [x[name].copy(), x[name].copy()]
            moved[0][index] += 1e-5
            moved[1][index] -= 1e-5
            plus, minus = (written_out(**x | {name: value}, mask=mask)[0] for value in moved)
            expected[index] = (plus - minus) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("mask", [False, True])
def test_rows_that_are_not_valid_neither_give_nor_get_anything(mask):
    x = example(3)
    invalid = ~x["valid"]

    def total(query, target):
        return loss_of(x | {"query": query, "target": target}, mask=mask)[0]

    query, target = jnp.asarray(x["query"], jnp.float32), jnp.asarray(x["target"], jnp.float32)
    gradients = jax.grad(total, argnums=(0, 1))(query, target)
    for gradient in gradients:
        assert not np.asarray(gradient)[invalid].any()
        assert np.asarray(gradient)[~invalid].all(axis=-1).all()
    noise = jnp.where(invalid[:, None], 0.5, 0.0)
    assert total(query + noise, target - noise) == total(query, target)


def test_permuting_the_batch_permutes_the_gradients():
    x = example(4)
    order = np.random.default_rng(0).permutation(len(x["query"]))
    permuted = {name: value if name.startswith("negative") else value[order] for name, value in x.items()}
    grad = lambda x: jax.grad(lambda q: loss_of(x | {"query": q}, mask=True)[0])(jnp.asarray(x["query"], jnp.float32))
    np.testing.assert_allclose(loss_of(permuted, mask=True), loss_of(x, mask=True), rtol=1e-6)
    np.testing.assert_allclose(grad(permuted), np.asarray(grad(x))[order], atol=1e-6)


def test_no_valid_row_is_zero_and_finite():
    x = example()
    x["valid"][:] = False
    assert loss_of(x) == (0.0, 0.0)


def test_confident_rows_do_not_overflow():
    x = example()
    x["query"] = x["target"].copy()
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in x.items() if value.dtype == float}
    total, _ = contrastive_loss(
        arrays["query"],
        arrays["target"],
        temperature=0.001,
        valid=jnp.ones(7, bool),
        target_ids=jnp.arange(7),
        negatives=arrays["negatives"],
    )
    assert 0 <= float(total) < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_recall_at_one_counts_by_hand(seed):
    x = example(seed, n=9, d=3)
    rows = np.flatnonzero(x["valid"])
    hits = sum(i == rows[np.argmax([x["query"][i] @ x["target"][j] for j in rows])] for i in rows)
    got = recall_at_one(*(jnp.asarray(x[n], jnp.float32) for n in ("query", "target")), jnp.asarray(x["valid"]))
    assert got == (hits, len(rows))


@pytest.mark.parametrize("form", ["gathered", "chunked", "ring"])
def test_one_direction_is_the_queries_own_cross_entropy(form):
    x = example()
    options = {name: jnp.asarray(x[name]) for name in ("valid", "target_ids")}
    query, target = (jnp.asarray(x[name], jnp.float32) for name in ("query", "target"))
    total, count = contrastive_loss(query, target, temperature=TAU, one_direction=True, form=form, **options)
    rows = np.flatnonzero(x["valid"])
    scores = x["query"][rows] @ x["target"][rows].T / TAU
    expected = (np.log(np.exp(scores).sum(1)) - np.diagonal(scores)).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == len(rows)
