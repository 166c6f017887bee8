"""Schedules against closed forms; what weight decay touches."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs.base import base, shrink
from contextjax import variants
from contextjax.optim import cosine_schedule, make_optimizer, make_schedule, restarts_schedule, stop_gradients
from contextjax.pretrained import abstract_params
from contextjax.pretrained.names import flatten, unflatten
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
    "freeze": (),
    "multipliers": {},
    "decay_period": 10,
    "decay_factor": 0.5,
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
    with pytest.raises(UserError, match=r"linear.*'cosine', 'restarts' and 'exp"):
        make_schedule(config(schedule="linear"), steps=10)


def test_an_unknown_optimizer_is_told():
    with pytest.raises(UserError, match=r"lion.*'adamw', 'adam' and 'muon'"):
        make_optimizer(config(name="lion"), steps=10)


def test_muon_gives_each_matrix_a_flat_spectrum_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    shapes = {"layer": {"kernel": (6, 4), "qkv_kernel": (4, 3, 4), "bias": (4,)}, "table": {"embedding": (5, 4)}}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params, gradients = (jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple)) for _ in range(2))
    optimizer = make_optimizer(config(name="muon", weight_decay=0.0, warmup_steps=0, clip_norm=1e9), steps=10)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
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
    update = jax.jit(optimizer.update)
    for _ in range(3):  # the rate of step 0 is 0
        updates, state = update(zeros, state, params)
    moved = jax.tree.map(lambda u: bool((u < 0).all()), updates)
    assert moved == {"kernel": True, "bias": vectors, "scale": vectors}


OPTIONS = {  # of the towers and their systems: every kind of parameter there is
    "context_cir": {},
    "context_blip": {
        "adapter": "taps", "masking": "pixels", "selection": "both", "pooling_heads": 4, "propositions": True,
        "context_layers": 1, "context_text": True,
    },
    "context_blip summary": {"adapter": "convolutions", "masking": "attended"},
}  # fmt: skip


@functools.cache
def shapes_of(case, **towers):
    """Path -> shape of every parameter of a small system."""
    recipe = base(case.split()[0])
    shrink(recipe)
    recipe.model.update(OPTIONS[case])
    for tower in (recipe.model.vision, recipe.model.text):
        tower.update({"layers": 3, **towers})
    model = variants.make_model(variants.make_spec(recipe.model))
    return {path: x.shape for path, x in flatten(nn.unbox(abstract_params(model))).items()}


@pytest.mark.long
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("case", OPTIONS)
def test_decay_spares_biases_norms_and_scalars_of_every_system(case, scan):
    """The names are those of what the parameters are; a new kind of parameter has to be added here."""
    shapes = shapes_of(case, scan=scan)
    params = unflatten({path: jnp.ones([1] * len(shape)) for path, shape in shapes.items()})  # the rank is what counts
    optimizer = make_optimizer(config(decay_vectors=False, warmup_steps=0), steps=100)
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    decayed = {path.split("/")[-1] for path, x in flatten(updates).items() if (x < 0).all()}
    still = {path.split("/")[-1] for path, x in flatten(updates).items() if (x == 0).all()}
    assert decayed <= {"kernel", "qkv_kernel", "embedding", "position_embedding", "query"}
    assert still <= {"bias", "qkv_bias", "truth_bias", "scale", "logit_scale", "class_embedding", "mask_embedding"}
    assert len(decayed | still) == len({path.split("/")[-1] for path in shapes}) and {"qkv_bias", "scale"} <= still


def stacked(flat, shapes):
    """The tree, with those shapes, of flat parameters of layers one by one."""
    layers = lambda path, count: [flat[path.replace("/layers/", f"/layer_{i}/")] for i in range(count)]
    own = {p: np.stack(layers(p, s[0])) if "/layers/" in p else flat[p] for p, s in shapes.items()}
    return unflatten(own)


def unstacked(tree, layers=3):
    """The flat tree of layers one by one, whether they were stacked or not."""
    flat = flatten(tree)
    for path in [path for path in flat if "/layers/" in path]:
        value = flat.pop(path)
        flat |= {path.replace("/layers/", f"/layer_{i}/"): value[i] for i in range(layers)}
    return flat


BLOCK = {
    "attention/qkv_kernel": (6, 3, 6), "attention/qkv_bias": (3, 6), "mlp/up/kernel": (6, 8), "mlp/up/bias": (8,),
    "norm/scale": (6,),
}  # fmt: skip
REST = {"clip/vision/embedding": (9, 6), "clip/logit_scale": (), "pooling/kernel": (6, 4)}
TOWERS = ("clip/vision", "clip/text")
ONE_BY_ONE = REST | {f"{t}/layer_{i}/{p}": s for t in TOWERS for i in range(3) for p, s in BLOCK.items()}
STACKED = REST | {f"{t}/layers/{p}": (3, *s) for t in TOWERS for p, s in BLOCK.items()}
FREEZE = ("clip/vision/layer_0", "clip/text/layers", "clip/logit_scale")
MULTIPLIERS = {"clip": 0.1, "clip/vision/layer_1/mlp": 0.5, "clip/vision/layers/attention": 3.0, "pooling": 2.0}


BY_PATH = {"freeze": FREEZE, "multipliers": MULTIPLIERS}
LONG = [pytest.param(*case, marks=pytest.mark.long) for case in (("adam", {}), ("adamw", BY_PATH), ("muon", {}))]


@pytest.mark.long
@pytest.mark.parametrize(("name", "by_path"), [("adamw", {}), ("adam", BY_PATH), ("muon", BY_PATH), *LONG])
def test_stacked_layers_are_updated_as_layers_one_by_one(name, by_path):
    optimizer = make_optimizer(config(name=name, decay_vectors=False, warmup_steps=0, **by_path), steps=20)
    rng = np.random.default_rng(0)
    draw = lambda: {path: rng.normal(size=shape).astype(np.float32) for path, shape in ONE_BY_ONE.items()}
    start, gradients, after = draw(), [draw() for _ in range(3)], {}
    for shapes in (ONE_BY_ONE, STACKED):
        params = stacked(start, shapes)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for gradient in gradients:
            updates, state = update(stacked(gradient, shapes), state, params)
            params = optax.apply_updates(params, updates)
        after[len(shapes)] = unstacked(params)
    one_by_one, together = after[len(ONE_BY_ONE)], after[len(STACKED)]
    assert together.keys() == start.keys()
    frozen = ("clip/vision/layer_0/", "clip/text/layer_", "clip/logit_scale") if by_path else ("none",)
    for path, value in together.items():
        # The products of Newton and Schulz's iteration are summed in another order for a batch of matrices.
        np.testing.assert_allclose(value, one_by_one[path], rtol=1e-5, atol=1e-6, err_msg=path)
        assert (value == start[path]).all() == path.startswith(frozen), path


@pytest.mark.parametrize("scan", [False, True])
def test_no_gradient_of_a_frozen_layer_is_seen(scan):
    shapes = STACKED if scan else ONE_BY_ONE
    params = unflatten({path: jnp.ones(shape) for path, shape in shapes.items()})
    total = lambda params: sum(x.sum() for x in jax.tree.leaves(stop_gradients(params, FREEZE)))
    for path, gradient in unstacked(jax.jit(jax.grad(total))(params)).items():
        is_frozen = path.startswith(("clip/vision/layer_0/", "clip/text/layer_", "clip/logit_scale"))
        assert (gradient == (0 if is_frozen else 1)).all(), path


def test_one_step_is_clipped_adamw():
    params = {"w": jnp.asarray([[3.0, 4.0]])}
    optimizer = make_optimizer(config(weight_decay=0.1, warmup_steps=0), steps=10)
    state = optimizer.init(params)
    updates, _ = jax.jit(optimizer.update)({"w": jnp.asarray([[30.0, -40.0]])}, state, params)
    # Clipped to [0.6, -0.8]; Adam's first step is the sign; decay is decoupled.
    expected = -1e-3 * (np.asarray([[1.0, -1.0]]) + 0.1 * np.asarray([[3.0, 4.0]]))
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-4)


TREE = {"tower": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "tower_2": {"kernel": jnp.ones((2, 2))}}


@pytest.mark.parametrize("name", ["adamw", "adam", "muon"])
def test_what_is_frozen_has_no_state_and_stays(name):
    optimizer = make_optimizer(config(name=name, freeze=("tower",), warmup_steps=0), steps=10)
    state = optimizer.init(TREE)
    held = {leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim}
    assert (2,) not in held and (2, 2) in held  # tower's bias has no moments, tower_2's kernel has
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.ones_like, TREE), state, TREE)
    assert not jax.tree.reduce(lambda a, b: a + jnp.abs(b).sum(), updates["tower"], 0.0)
    assert (updates["tower_2"]["kernel"] != 0).all()


def test_no_gradient_is_computed_for_what_is_frozen():
    """Counted in the compiled program: the backward product of the frozen kernel is gone."""
    x = jnp.ones((8, 2))

    def loss(params, frozen):
        params = stop_gradients(params, frozen)
        return jnp.tanh(jnp.tanh(x @ params["tower"]["kernel"]) @ params["tower_2"]["kernel"]).sum()

    products = [
        jax.jit(jax.grad(loss), static_argnums=1).lower(TREE, frozen).as_text().count("dot_general")
        for frozen in ((), ("tower",), ("tower", "tower_2"))
    ]
    assert products[0] > products[1] > products[2] >= 0
    assert products[1] == 3  # two forward, one backward


def test_a_multiplier_scales_the_updates_under_its_path():
    gradients = jax.tree.map(jnp.ones_like, TREE)
    plain, scaled = (
        make_optimizer(config(weight_decay=0.1, warmup_steps=0, multipliers=multipliers), steps=10)
        for multipliers in ({}, {"tower": 0.02})
    )
    one, other = (jax.jit(optimizer.update)(gradients, optimizer.init(TREE), TREE)[0] for optimizer in (plain, scaled))
    np.testing.assert_allclose(other["tower"]["kernel"], 0.02 * one["tower"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(other["tower_2"]["kernel"], one["tower_2"]["kernel"])


def test_a_path_without_parameters_is_told():
    with pytest.raises(UserError, match="names 'towers', where the model has nothing; it has tower, tower_2"):
        make_optimizer(config(freeze=("towers",)), steps=10).init(TREE)
    with pytest.raises(UserError, match="towers"):
        stop_gradients(TREE, ("towers",))


def test_adam_has_its_decay_in_the_gradient():
    """torch.optim.Adam with weight_decay: g + decay * w goes through the moments (float64 by hand)."""
    optimizer = make_optimizer(
        config(name="adam", weight_decay=0.2, warmup_steps=0, learning_rate=0.1, schedule="exponential", clip_norm=1e9),
        steps=10,
    )
    params = {"w": jnp.asarray([1.0, -2.0])}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    w, m, v = np.asarray([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for step in range(1, 4):
        gradient = np.asarray([0.3, 0.1 * step])
        g = gradient + 0.2 * w
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        w = w - 0.1 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.98**step)) + 1e-8)
        updates, state = update({"w": jnp.asarray(gradient, jnp.float32)}, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_exponential_warms_up_and_then_falls_by_the_epoch():
    schedule = make_schedule(config(schedule="exponential", warmup_steps=4, learning_rate=8.0), steps=100)
    found = [float(schedule(step)) for step in (0, 2, 4, 13, 14, 24)]
    np.testing.assert_allclose(found, [0, 4, 8, 8, 4, 2], rtol=1e-6)
