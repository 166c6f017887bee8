"""Query tokens and texts of a Q-Former: which reads which (tests/parity has its numbers)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.qformer import QFormer, QFormerConfig

CONFIG = QFormerConfig(32, 12, width=16, layers=3, heads=4, mlp=24, query_tokens=3)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    init = lambda key: QFormer(CONFIG).init(
        key, jnp.ones((1, 4, 16)), jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool), method=both
    )
    from flax.linen import unbox

    shapes = unbox(jax.eval_shape(init, jax.random.key(0)))["params"]
    return jax.tree.map(lambda x: jnp.asarray(0.6 * rng.normal(size=x.shape), jnp.float32), shapes)


def both(module, tokens, ids, mask):
    return module.read_both(tokens, ids, mask), module(ids, mask)


def run(params, method, *inputs, config=CONFIG):
    return jax.jit(lambda params: QFormer(config).apply({"params": params}, *inputs, method=method))(params)


def test_every_layer_has_a_text_and_a_query_network_and_every_second_reads_the_picture(params):
    layers = {name: set(tree) for name, tree in params.items() if name.startswith("layer_")}
    plain = {"attention", "attention_norm", "mlp", "mlp_norm", "query_mlp", "query_mlp_norm"}
    cross = {"cross_attention", "cross_attention_norm"}
    assert layers == {"layer_0": plain | cross, "layer_1": plain, "layer_2": plain | cross}


def test_texts_by_themselves_read_neither_picture_nor_query_tokens_nor_padding(params, tiny):
    ids, mask = tiny.texts(2)
    states = run(params, "__call__", ids, mask).states
    changed = {**params, "query_tokens": params["query_tokens"] + 1}
    np.testing.assert_array_equal(run(changed, "__call__", ids, mask).states, states)
    padded = run(params, "__call__", jnp.where(mask, ids, 9), mask).states
    np.testing.assert_allclose(padded[mask], states[mask], atol=1e-5)


@pytest.mark.long
def test_query_tokens_read_the_picture_the_text_and_no_padding(params, tiny):
    (ids, mask), rng = tiny.texts(2), np.random.default_rng(1)
    tokens = jnp.asarray(rng.normal(size=(2, 5, 16)), jnp.float32)
    states = run(params, "read_both", tokens, ids, mask)
    assert states.shape == (2, 3, 16)
    np.testing.assert_allclose(run(params, "read_both", tokens, jnp.where(mask, ids, 9), mask), states, atol=1e-5)
    other_text = ids.at[:, 1].set((ids[:, 1] + 1) % 32)
    for inputs in ((tokens + 1, ids, mask), (tokens, other_text, mask)):
        assert (np.abs(run(params, "read_both", *inputs) - states).max((1, 2)) > 1e-4).all()
    assert np.abs(run(params, "read_image", tokens) - states).max() > 1e-3  # no text is not an empty one
    by_rows = run(params, "read_both", tokens[:1], ids, mask, jnp.zeros(2, jnp.int32))
    np.testing.assert_allclose(by_rows, run(params, "read_both", tokens[:1], ids, mask), atol=1e-6)


@pytest.mark.long
def test_remat_changes_no_number(params, tiny):
    (ids, mask), tokens = tiny.texts(2), jnp.ones((2, 5, 16))

    def gradients(config):
        loss = lambda params: (
            QFormer(config).apply({"params": params}, tokens, ids, mask, method="read_both") ** 2
        ).sum()
        return jax.jit(jax.grad(loss))(params)

    plain, other = gradients(CONFIG), gradients(dataclasses.replace(CONFIG, remat="full"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other, plain)
