"""Attention: its weights, its mask, and its other forms, which give the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models import attention
from contextjax.models.attention import attend, attend_in_chunks, fused_attend
from contextjax.sharding import activations, make_mesh


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_weights_sum_to_one_over_what_may_be_seen_and_are_zero_elsewhere():
    query, key, value = arrays((2, 3, 4, 5), (2, 6, 4, 5), (2, 6, 4, 5))
    mask = jnp.asarray([[True] * 6, [True, False, True, False, False, False]])[:, None, None]
    out, weights = attend(query, key, value, mask)
    assert out.shape == (2, 3, 4, 5) and weights.shape == (2, 4, 3, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert not np.asarray(weights)[1, :, :, [1, 3, 4, 5]].any()
    scores = np.einsum("qhd,khd->hqk", query[0], key[0]) / np.sqrt(5)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5)
    np.testing.assert_allclose(out[0], np.einsum("hqk,khd->qhd", expected, value[0]), atol=1e-5)


def test_seeing_nothing_stays_finite():
    query, key, value = arrays((1, 2, 1, 4), (1, 3, 1, 4), (1, 3, 1, 4))
    mask = jnp.zeros((1, 1, 1, 3), bool)
    total, gradients = jax.value_and_grad(lambda *x: attend(*x, mask)[0].sum(), argnums=(0, 1, 2))(query, key, value)
    assert np.isfinite(total) and all(np.isfinite(g).all() for g in gradients)


def same_attention(other, inputs, mask):
    """Checks that a form of attention gives the outputs and gradients of `attend`."""
    scalar = lambda out: (jnp.sin(3 * out)).sum()
    forms = (lambda *x: scalar(attend(*x, mask)[0]), lambda *x: scalar(other(*x)))
    (one, by_one), (two, by_two) = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(*inputs) for f in forms)
    np.testing.assert_allclose(two, one, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), by_two, by_one)


def random_mask(shape):
    return None if shape is None else jnp.asarray(np.random.default_rng(1).random(shape) < 0.6).at[..., 0].set(True)


@pytest.mark.parametrize(
    ("lead", "tokens", "mask"),
    [
        ((2, 3), 6, None), ((2, 3), 6, (2, 1, 1, 1, 6)), ((2,), 6, (2, 1, 6, 6)), ((2, 3), 6, (1, 1, 1, 1, 6)),
        ((2,), 5, None), ((2,), 5, (2, 1, 5, 5)), ((2, 3), 7, (2, 1, 1, 1, 7)),  # a token more, which none sees
    ],
)  # fmt: skip
def test_one_kernel_gives_what_attention_by_weights_gives(lead, tokens, mask):
    """The same call with XLA's implementation; cuDNN's takes a CUDA device."""
    mask = random_mask(mask)
    same_attention(lambda *x: fused_attend(*x, mask, "xla"), arrays(*[(*lead, tokens, 4, 8)] * 3), mask)


@pytest.mark.parametrize("mask", [None, (8, 1, 1, 5), (8, 1, 5, 5), (1, 1, 5, 5), (5, 5)])
def test_attention_in_chunks_is_attention(mask, monkeypatch):
    """On a TPU, where a few rows' logits fit near the cores; on one device and on several."""
    mask, inputs = random_mask(mask), arrays(*[(8, 5, 4, 8)] * 3)
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    monkeypatch.setattr(attention, "NEAR", 2 * 4 * 4 * 8 * 128)  # of two rows, filled up to tiles
    assert attention.rows_at_once(inputs[0], inputs[1], mask) == 2
    same_attention(lambda *x: attend_in_chunks(*x, mask, 2), inputs, mask)
    same_attention(lambda *x: attend_in_chunks(*x, mask, 8), inputs, mask)
    mesh = make_mesh("data:2,fsdp:2,tensor:2")
    with activations(mesh):
        assert attention.rows_at_once(inputs[0], inputs[1], mask) == 2
        same_attention(lambda *x: attend_in_chunks(*x, mask, 1), inputs, mask)


def test_chunks_are_a_tpu_s():
    query, key = arrays((8, 257, 16, 64), (8, 257, 16, 64))
    assert attention.rows_at_once(query, key, None) == 0
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("a",), abstract_device=device)):
        assert attention.rows_at_once(query, key, None) == 4
        assert attention.rows_at_once(query[None], key[None], None) == 0
