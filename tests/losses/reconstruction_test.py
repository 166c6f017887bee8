"""The masking losses against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.losses.reconstruction import attended_loss, reconstruction_loss

RNG = np.random.default_rng(0)


def test_reconstruction_is_the_mean_squared_error_over_everything():
    pixels, truth = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    total, count = reconstruction_loss(jnp.asarray(pixels), jnp.asarray(truth))
    assert count == 3 * 4 * 5
    np.testing.assert_allclose(total / count, ((pixels.astype(np.float64) - truth) ** 2).mean(), rtol=1e-5)
    assert reconstruction_loss(jnp.asarray(truth), jnp.asarray(truth))[0] == 0
    slope = jax.grad(lambda x: reconstruction_loss(x, jnp.asarray(truth))[0])(jnp.asarray(pixels))
    np.testing.assert_allclose(slope, 2 * (pixels - truth), rtol=1e-5)


def test_predictions_in_bfloat16_are_summed_in_float32():
    pixels = jnp.asarray(RNG.normal(size=(8, 64, 64)), jnp.bfloat16)
    total, _ = reconstruction_loss(pixels, jnp.zeros(pixels.shape))
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, (np.asarray(pixels, np.float64) ** 2).sum(), rtol=1e-4)


def test_the_loss_of_the_summary_form_is_a_sum_over_patches_and_a_mean_over_pictures():
    logits, attended = RNG.normal(size=(3, 9)).astype(np.float32) * 4, RNG.random((3, 9)) < 0.4
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = ((attended - probability) ** 2).sum(-1).mean()
    total, count = attended_loss(jnp.asarray(logits), jnp.asarray(attended))
    assert count == 3
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)
    sure = jnp.where(jnp.asarray(attended), 1e4, -1e4)
    assert attended_loss(sure, jnp.asarray(attended)) == (0, 3)
    assert attended_loss(-sure, jnp.asarray(attended)) == (27, 3)
