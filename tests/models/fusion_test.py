"""The fusion block is its formula, begins as the identity and reads real tokens alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.fusion import FusionBlock
from tests.models.context_blip_test import random_params


def inputs():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return draw(2, 5, 8), draw(2, 4, 12), jnp.asarray([[True] * 4, [True, True, False, False]])


@pytest.mark.parametrize("self_attention", [False, True])
def test_the_block_begins_as_the_identity(self_attention):
    v, text, mask = inputs()
    block = FusionBlock(2, "gelu", 1e-5, self_attention)
    params = nn.unbox(block.init(jax.random.key(0), v, text, mask)["params"])
    out, weights = block.apply({"params": params}, v, text, mask)
    np.testing.assert_array_equal(out, v)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_the_block_is_its_formula():
    v, text, mask = inputs()
    block = FusionBlock(2, "relu", 1e-5)
    params = random_params(block, v, text, mask)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    linear = lambda x, p: x @ p["kernel"] + p["bias"]

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    x, context, cross = np.asarray(v, np.float64), np.asarray(text, np.float64), p["cross_attention"]
    split = lambda x: x.reshape(*x.shape[:-1], 2, 4)
    query = split(linear(norm(x, p["cross_attention_norm"]), cross["query"]))
    key, value = (split(linear(context, cross[name])) for name in ("key", "value"))
    logits = np.einsum("bihd,bthd->bhit", query, key) / 2
    logits = np.where(np.asarray(mask)[:, None, None], logits, -np.inf)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    x = x + linear(np.einsum("bhit,bthd->bihd", weights, value).reshape(x.shape), cross["out"])
    x = x + linear(np.maximum(linear(norm(x, p["mlp_norm"]), p["mlp"]["up"]), 0), p["mlp"]["down"])
    out, got = block.apply({"params": params}, v, text, mask)
    np.testing.assert_allclose(got, weights, atol=1e-6)
    np.testing.assert_allclose(out, x, atol=1e-4)
