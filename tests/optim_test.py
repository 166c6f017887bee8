"""Schedules against closed forms; what weight decay touches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from contextjax.optim import cosine_schedule, make_optimizer, make_schedule, restarts_schedule
from contextjax.types import UserError

CONFIG = {
    "name": "adamw",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 2,
    "restart_period": 5,
    "restart_factor": 2,
    "beta1": 0.9,
    "beta2": 0.98,
    "epsilon": 1e-8,
    "weight_decay": 0.5,
    "decay_vectors": True,
    "clip_norm": 1.0,
}


def config(**changes):
    return ConfigDict(CONFIG | changes)


def restarts_by_counting(step, *, peak, warmup, period, factor):
    """Walks through the periods one by one."""
    if step < warmup:
        return peak * step / warmup
    step -= warmup
    while step >= period:
        step -= period
        period *= factor
    return peak * (1 + math.cos(math.pi * step / period)) / 2


@pytest.mark.parametrize(("period", "factor"), [(5, 2), (7, 1), (4, 3), (2500, 2)])
def test_restarts_are_those_of_counting(period, factor):
    options = {"peak": 2.0, "warmup": 3, "period": period, "factor": factor}
    edges = [3 + period * (factor**n - 1) // (factor - 1) if factor > 1 else 3 + n * period for n in range(6)]
    steps = sorted({*range(12), *(edge + d for edge in edges for d in (-1, 0, 1))})
    found = jax.vmap(restarts_schedule(**options))(jnp.asarray(steps))
    np.testing.assert_allclose(found, [restarts_by_counting(s, **options) for s in steps], atol=2e-5)


def test_every_restart_is_at_the_peak_and_comes_from_near_zero():
    schedule = restarts_schedule(1.0, warmup=500, period=2500, factor=2)
    for restart in (500, 500 + 2500, 500 + 7500, 500 + 17500):
        assert float(schedule(restart)) == pytest.approx(1.0, abs=1e-6)
        if restart > 500:
            assert float(schedule(restart - 1)) < 1e-5


def test_a_schedule_without_warm_up_begins_at_the_peak():
    assert float(restarts_schedule(1.0, warmup=0, period=5, factor=2)(0)) == 1.0


def test_cosine_is_its_closed_form():
    schedule = cosine_schedule(3.0, warmup=4, steps=24)
    for step in range(30):
        progress = min(max(step - 4, 0) / 20, 1)
        expected = 3 * step / 4 if step < 4 else 3 * (1 + math.cos(math.pi * progress)) / 2
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-6)


def test_a_cosine_shorter_than_its_warm_up_is_still_a_schedule():
    assert np.isfinite(float(cosine_schedule(1.0, warmup=100, steps=10)(5)))


def test_an_unknown_schedule_is_told():
    with pytest.raises(UserError, match=r"linear.*'cosine' and 'restarts'"):
        make_schedule(config(schedule="linear"), steps=10)


def test_an_unknown_optimizer_is_told():
    with pytest.raises(UserError, match=r"lion.*'adamw' and 'muon'"):
        make_optimizer(config(name="lion"), steps=10)


def test_muon_gives_each_matrix_a_flat_spectrum_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    shapes = {"layer": {"kernel": (6, 4), "qkv_kernel": (4, 3, 4), "bias": (4,)}, "table": {"embedding": (5, 4)}}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params, gradients = (jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple)) for _ in range(2))
    optimizer = make_optimizer(config(name="muon", weight_decay=0.0, warmup_steps=0, clip_norm=1e9), steps=10)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    layer = updates["layer"]
    for matrix in (layer["kernel"], *(layer["qkv_kernel"][:, i] for i in range(3))):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values.max() / values.min() < 2.5  # five Newton-Schulz steps bring all near one
        assert np.sqrt(np.mean(np.square(matrix))) == pytest.approx(1e-3 * 0.2, rel=0.5)
    for value, gradient in (
        (layer["bias"], gradients["layer"]["bias"]),
        (updates["table"]["embedding"], gradients["table"]["embedding"]),
    ):
        np.testing.assert_array_equal(np.sign(value), -np.sign(gradient))
        assert np.ptp(np.abs(value)) < 1e-6 and 0.9e-3 < np.abs(value).max() < 1.6e-3  # Adam's first step


@pytest.mark.parametrize("vectors", [True, False])
def test_decay_spares_vectors_and_scalars_where_told(vectors):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.float32(1)}
    optimizer = make_optimizer(config(decay_vectors=vectors), steps=100)
    state = optimizer.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for _ in range(3):  # the rate of step 0 is 0
        updates, state = optimizer.update(zeros, state, params)
    moved = jax.tree.map(lambda u: bool((u < 0).all()), updates)
    assert moved == {"kernel": True, "bias": vectors, "scale": vectors}


def test_one_step_is_clipped_adamw():
    params = {"w": jnp.asarray([[3.0, 4.0]])}
    optimizer = make_optimizer(config(weight_decay=0.1, warmup_steps=0), steps=10)
    state = optimizer.init(params)
    updates, _ = optimizer.update({"w": jnp.asarray([[30.0, -40.0]])}, state, params)
    # Clipped to [0.6, -0.8]; Adam's first step is the sign; decay is decoupled.
    expected = -1e-3 * (np.asarray([[1.0, -1.0]]) + 0.1 * np.asarray([[3.0, 4.0]]))
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-4)
