"""Patches are a convolution's; pixels are scaled as CLIP's were."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.models.vision import VisionConfig, VisionTransformer, blocks


@pytest.mark.parametrize("side", [2, 4])
def test_blocks_then_a_matrix_is_a_convolution(side):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8 + side // 2, 13, 3)), jnp.float32)  # what no patch fills is not seen
    kernel = jnp.asarray(rng.normal(size=(side, side, 3, 5)), jnp.float32)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (side, side), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(blocks(x, side) @ kernel.reshape(-1, 5), expected, atol=1e-4)


def test_blocks_flatten_by_row_column_channel():
    x = jnp.arange(4 * 4 * 2, dtype=jnp.float32).reshape(4, 4, 2)
    np.testing.assert_array_equal(blocks(x, 2)[1, 0], x[2:4, 0:2].reshape(-1))


def test_pixels_are_scaled_by_mean_and_std():
    """A picture of the mean colour is a picture of zeros: patches give only their bias."""
    config = VisionConfig(
        8, 4, width=8, layers=0, heads=2, mlp=8, pre_norm=False, patch_bias=True,
        mean=(10 / 255, 20 / 255, 30 / 255), std=(1 / 255, 2 / 255, 4 / 255),
    )  # fmt: skip
    tower = VisionTransformer(config)
    picture = jnp.broadcast_to(jnp.asarray([10, 20, 30], jnp.uint8), (1, 8, 8, 3))
    params = nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), picture)["params"])
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), params)
    bias = jnp.arange(8.0)
    params["patch_embedding"] = {"bias": bias, "kernel": jnp.ones((48, 8))}
    run = jax.jit(lambda picture: tower.apply({"params": params}, picture).tokens)
    tokens = run(picture)
    np.testing.assert_allclose(tokens[0, 1:], np.tile(bias, (4, 1)), atol=1e-4)
    np.testing.assert_array_equal(tokens[0, 0], np.zeros(8))
    # One unit of red in each of 16 pixels, one std a unit.
    tokens = run(picture + jnp.asarray([1, 0, 0], jnp.uint8))
    np.testing.assert_allclose(tokens[0, 1:], np.tile(bias + 16, (4, 1)), atol=1e-3)


def test_a_picture_does_not_depend_on_its_batch(tiny):
    tower = VisionTransformer(dataclasses.replace(tiny.clip.vision, stem=(4, 8)))
    pictures = tiny.pictures(3)
    params = nn.unbox(jax.jit(tower.init)(jax.random.key(0), pictures)["params"])
    assert params["stem"]["kernel"].shape == (48, 8) and params["patch_embedding"]["kernel"].shape == (32, 16)
    run = jax.jit(lambda x: tower.apply({"params": params}, x))
    together, alone = run(pictures), run(pictures[1:2])
    assert together.tokens.shape == (3, 5, 16)
    np.testing.assert_allclose(together.tokens[1:2], alone.tokens, atol=1e-5)
    np.testing.assert_allclose(together.pooled[1:2], alone.pooled, atol=1e-5)
