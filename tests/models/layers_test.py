"""Layers: the fused projection of attention, activations, pooling, blocks and what they keep."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models import layers
from contextjax.models.layers import (
    ACTIVATIONS,
    REMATS,
    AttentionPooling,
    CrossAttention,
    GridPooling,
    SelfAttention,
    TransformerBlock,
    attend,
    normalize,
    run_blocks,
)
from contextjax.models.vision import VisionConfig
from contextjax.types import UserError
from tests.models.attention_test import arrays
from tests.models.context_blip_test import close, jit, random_params


def test_the_fused_projection_is_three():
    layer = SelfAttention(heads=2)
    (x,) = arrays((3, 5, 8))
    params = nn.unbox(layer.init(jax.random.key(0), x)["params"])
    params["qkv_kernel"], params["qkv_bias"], params["out"]["bias"] = arrays((8, 3, 8), (3, 8), (8,), seed=1)
    query, key, value = ((x @ params["qkv_kernel"][:, i] + params["qkv_bias"][i]).reshape(3, 5, 2, 4) for i in range(3))
    out, _ = attend(query, key, value, None)
    expected = out.reshape(3, 5, 8) @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_textbook_ones(name):
    from math import erf, exp, pi, sqrt, tanh

    tanh_form = lambda x: x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    forms = {
        "gelu": lambda x: x * 0.5 * (1 + erf(x / sqrt(2))),
        "quick_gelu": lambda x: x / (1 + exp(-1.702 * x)),
        "gelu_new": tanh_form,
        "gelu_pytorch_tanh": tanh_form,
        "relu": lambda x: max(x, 0),
    }
    x = np.linspace(-4, 4, 17)
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), [forms[name](v) for v in x], atol=2e-6)


def test_grid_pooling_sees_what_stands_where_and_attention_pooling_does_not():
    (x,) = arrays((2, 5, 8))
    swapped = x[:, jnp.asarray([0, 2, 1, 3, 4])]
    for pooling, sees in ((GridPooling(), True), (AttentionPooling(4, 1e-5), False)):
        params = pooling.init(jax.random.key(0), x)
        difference = np.abs(pooling.apply(params, x) - pooling.apply(params, swapped)).max()
        assert (difference > 1e-2) if sees else (difference < 1e-5)


def test_a_scanned_tower_keeps_nothing_in_float32_between_bfloat16():
    tower = VisionConfig(16, 8, width=16, layers=3, heads=4, mlp=32, scan=True)
    (x,) = arrays((2, 5, 16))
    model = Tower(tower, jnp.bfloat16)
    params = nn.unbox(model.init(jax.random.key(0), x))
    _, pull = jax.vjp(lambda params, x: model.apply(params, x), params, x.astype(jnp.bfloat16))
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.shape[:2] == (3, 2)]
    assert kept and all(leaf.dtype == jnp.bfloat16 for leaf in kept)


def test_cudnn_without_a_cuda_device_is_refused():
    layer = SelfAttention(heads=2, dtype=jnp.bfloat16, attention="cudnn")
    with pytest.raises(UserError, match=r"no CUDA device.*attention=xla"):
        jax.eval_shape(layer.init, jax.random.key(0), *arrays((3, 5, 8)))


class Tower(nn.Module):
    """Blocks alone."""

    config: VisionConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        return run_blocks(TransformerBlock, self.config, self.dtype, x)[0]


def remat_step(policy: str, *, scan: bool):
    """(parameters' shapes, x -> the compiled loss and gradients) of four blocks."""
    tower = Tower(VisionConfig(16, 8, width=16, layers=4, heads=2, mlp=64, remat=policy, scan=scan))
    (x,) = arrays((8, 33, 16))
    params = nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), x)["params"])
    step = jax.value_and_grad(lambda params, x: (tower.apply({"params": params}, x) ** 2).sum(), argnums=(0, 1))
    return params, jax.jit(step).lower(params, x).compile()


@pytest.mark.long
def test_remat_keeps_names_and_numbers():
    (x,) = arrays((8, 33, 16))
    shapes, plain = remat_step("none", scan=False)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape), s.dtype), shapes)
    value, gradients = plain(params, x)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradients))
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest)
    matmuls = {"none": plain.as_text().count(" dot(")}
    for policy in ("dots", "full"):
        names, program = remat_step(policy, scan=False)
        assert names == shapes
        got, got_gradients = program(params, x)
        np.testing.assert_allclose(got, value, rtol=1e-5)
        jax.tree.map(close, got_gradients, gradients)
        matmuls[policy] = program.as_text().count(" dot(")
    assert matmuls["none"] < matmuls["full"]  # computed again


def test_remat_takes_less_memory():
    """Blocks are scanned: XLA's CPU backend recomputes unrolled ones too early to save memory."""
    size = {p: remat_step(p, scan=True)[1].memory_analysis().temp_size_in_bytes for p in REMATS}
    assert size["full"] < size["dots"] < 0.6 * size["none"]


@pytest.mark.parametrize("few", [4, 0])
def test_rows_read_their_context_as_if_it_were_gathered(few, monkeypatch):
    """The same output, weights and gradients; keys and values are computed once for each context."""
    monkeypatch.setattr(layers, "FEW", few)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    x, context, rows = draw(6, 3, 8), draw(2, 4, 12), jnp.asarray([0, 1, 1, 0, 1, 1])
    mask = jnp.asarray(rng.random((6, 1, 1, 4)) < 0.7).at[..., 0].set(True)  # a text's own
    layer = CrossAttention(heads=2)
    params = random_params(layer, x, context[rows])
    goal = draw(6, 3, 8)

    def apply(params, x, context, rows=None):
        out, weights = layer.apply({"params": params}, x, context, mask, rows=rows)
        return (out * goal).sum() + (weights**2).sum(), (out, weights)

    step = lambda apply: jit(jax.value_and_grad(apply, argnums=(0, 1, 2), has_aux=True)).lower(params, x, context)
    shared, gathered = (
        step(lambda params, x, context: apply(params, x, context, rows)),
        step(lambda params, x, context: apply(params, x, context[rows])),
    )
    close(*(program.compile()(params, x, context) for program in (shared, gathered)), to=1e-4)
    assert shared.cost_analysis()["flops"] < gathered.cost_analysis()["flops"]


def test_normalize_is_float32_and_survives_zero():
    x = normalize(jnp.asarray([[3.0, 4.0], [0.0, 0.0]], jnp.bfloat16))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0]], atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: normalize(x).sum())(jnp.asarray([[1.0, 0.0]]))).all()
