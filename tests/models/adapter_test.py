"""The adapters against plain numpy: their sizes, how they begin, and what a patch's place means to them."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.adapter import ConvolutionalAdapter, MultiScaleAdapter
from tests.models.context_blip_test import jit

ROWS, GRID, WIDTH = 2, 4, 8
CONVOLUTIONAL = ConvolutionalAdapter(GRID)
MAKE = {
    "taps": lambda **options: MultiScaleAdapter(**options),
    "convolutions": lambda **options: ConvolutionalAdapter(GRID, **options),
}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def draw_taps(count=2, *, patches=GRID**2):
    return [draw(ROWS, 1 + patches, WIDTH, seed=seed) for seed in range(count)]


def begin(adapter, taps):
    return nn.unbox(jit(adapter.init)(jax.random.key(0), taps)["params"])


def run(adapter, params, taps, visible=None):
    return jit(lambda *inputs: adapter.apply({"params": params}, *inputs))(taps, visible)


def in_any_order(seed=0):
    """All patches in an order of its own for every row."""
    return np.argsort(np.random.default_rng(seed).random((ROWS, GRID**2)), axis=1)


def with_cls(patches):
    """The places of CLS and of patches among the tokens."""
    return np.concatenate([np.zeros((len(patches), 1), int), patches + 1], axis=1)


def take(tokens, places):
    return np.take_along_axis(np.asarray(tokens), places[..., None], axis=1)


@pytest.mark.parametrize(("reduction", "count"), [(2, 2_359_296), (4, 1_179_648)])
def test_it_has_the_papers_number_of_parameters(reduction, count):
    taps = [jnp.zeros((1, 197, 768))] * 4
    params = jax.eval_shape(MultiScaleAdapter(reduction).init, jax.random.key(0), taps)["params"]
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(params)) == count


def test_the_scales_of_several_layers_are_the_formula():
    taps = draw_taps(3)
    adapter = MultiScaleAdapter(reduction=4)
    params = begin(adapter, taps)
    hidden = [np.maximum(tap @ params[f"down_{i}"]["kernel"], 0) for i, tap in enumerate(taps)]
    expected = taps[-1] + np.maximum(np.concatenate(hidden, axis=-1) @ params["up"]["kernel"], 0)
    np.testing.assert_allclose(run(adapter, params, taps), expected, atol=1e-5)
    assert params["up"]["kernel"].shape == (3 * 2, WIDTH)


def convolved(hidden, kernel):
    """A kernel of its own for every channel, over a grid with zeros around it; patch by patch, in float64."""
    size = len(kernel)
    wide = np.pad(hidden.astype(np.float64), ((size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    out = np.zeros(hidden.shape)
    for row, column in np.ndindex(GRID, GRID):
        out[row, column] = (wide[row : row + size, column : column + size] * kernel[:, :, 0]).sum((0, 1))
    return out


@pytest.mark.parametrize("seen", [GRID**2, 11])
def test_the_scales_over_the_grid_are_the_formula(seen):
    """Also of some patches only: what is hidden counts as zeros, and the mean is over what is seen."""
    visible = in_any_order()[:, :seen]
    (x,) = draw_taps(1, patches=seen)
    params = begin(CONVOLUTIONAL, draw_taps(1))
    got = run(CONVOLUTIONAL, params, [x], jnp.asarray(visible))
    for row in range(ROWS):
        hidden = np.maximum(np.asarray(x[row]) @ params["down"]["kernel"], 0)
        grid = np.zeros((GRID**2, hidden.shape[-1]))
        grid[visible[row]] = hidden[1:]
        scales = [np.broadcast_to(hidden.mean(0), hidden.shape)]
        for size in (1, 3, 5):
            over = convolved(grid.reshape(GRID, GRID, -1), params[f"scale_{size}"]["kernel"]).reshape(grid.shape)
            seen_by = over[visible[row]]
            scales.append(np.concatenate([seen_by.mean(0, keepdims=True), seen_by]))
        expected = x[row] + np.maximum(np.concatenate(scales, axis=-1) @ params["up"]["kernel"], 0)
        np.testing.assert_allclose(got[row], expected, atol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_all_patches_in_any_order_are_the_same_tokens_in_that_order(name):
    adapter, taps, order = MAKE[name](), draw_taps(), in_any_order(1)
    params = begin(adapter, taps)
    places = with_cls(order)
    got = run(adapter, params, [jnp.asarray(take(tap, places)) for tap in taps], jnp.asarray(order))
    np.testing.assert_allclose(got, take(run(adapter, params, taps), places), atol=1e-5)


def test_neighbours_are_read_by_the_convolutions_alone():
    (x,) = draw_taps(1)
    params = begin(CONVOLUTIONAL, [x])
    params["up"]["kernel"] = params["up"]["kernel"].at[: WIDTH // 2].set(0)  # without the mean of all patches
    moved = run(CONVOLUTIONAL, params, [x.at[:, 1].add(3)]) - run(CONVOLUTIONAL, params, [x])
    change = np.abs(moved).max((0, -1))[1:].reshape(GRID, GRID)
    assert (change[:3, :3] > 1e-4).all() and not change[3].any() and not change[:, 3].any()
    assert np.abs(moved[:, 0]).max() > 1e-4  # CLS reads the mean of what the convolutions make


@pytest.mark.long
@pytest.mark.parametrize("name", MAKE)
def test_with_zero_init_it_begins_as_the_identity_and_learns(name):
    taps = draw_taps()
    plain, adapter = MAKE[name](), MAKE[name](zero_init=True)
    assert np.abs(run(plain, begin(plain, taps), taps) - taps[-1]).max() > 0.1
    params, goal = begin(adapter, taps), draw(ROWS, 1 + GRID**2, WIDTH, seed=9)
    np.testing.assert_array_equal(run(adapter, params, taps), taps[-1])
    gradient = jit(jax.grad(lambda params: (adapter.apply({"params": params}, taps) * goal).sum()))
    first = gradient(params)
    assert np.abs(first["gate"]).min() > 0
    second = gradient(params | {"gate": params["gate"] - 0.1 * first["gate"]})
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(second))  # with an open gate everything learns
