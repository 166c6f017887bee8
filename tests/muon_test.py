"""Muon: its numbers are those of optax.contrib.muon."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from contextjax.muon import muon, orthogonalize

AXES = {
    "wide": MuonDimensionNumbers(0, 1), "tall": MuonDimensionNumbers((0,), (1,)), "square": MuonDimensionNumbers(0, 1),
    "qkv": MuonDimensionNumbers(0, 2), "stack": MuonDimensionNumbers(1, 2),
    "window": MuonDimensionNumbers((0, 1, 2), 3), "bias": None,
}  # fmt: skip
SHAPES = {"wide": (8, 24), "tall": (40, 6), "square": (7, 7), "qkv": (8, 3, 8), "stack": (5, 6, 12),
          "window": (2, 2, 3, 4), "bias": (5,)}  # fmt: skip


def test_three_steps_are_those_of_optax():
    rng = np.random.default_rng(0)
    draw = lambda: {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
    schedule, decayed = optax.linear_schedule(1e-2, 1e-3, 4), lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    adam = optax.adamw(schedule, b1=0.9, b2=0.98, nesterov=True, weight_decay=0.02)
    axes = lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: AXES[path[0].key], tree)
    ours = muon(schedule, axes=axes, adam=adam, weight_decay=0.1, mask=decayed)
    theirs = optax.contrib.muon(
        schedule, weight_decay=0.1, weight_decay_mask=decayed, adam_b1=0.9, adam_b2=0.98, adam_weight_decay=0.02,
        consistent_rms=0.2, muon_weight_dimension_numbers=axes,
    )  # fmt: skip
    params, gradients = draw(), [draw() for _ in range(3)]
    found = []
    for rule in (ours, theirs):
        state, now = rule.init(params), params
        for gradient in gradients:
            updates, state = jax.jit(rule.update)(gradient, state, now)
            now = optax.apply_updates(now, updates)
        found.append(jax.tree.map(lambda new, old: new - old, now, params))
    for name in SHAPES:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (9, 9)])
def test_the_plain_iterations_give_the_same(shape, monkeypatch):
    x = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    found = orthogonalize(x)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    np.testing.assert_allclose(found, orthogonalize(x), atol=1e-5)
