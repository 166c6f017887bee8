"""Products with parameters: the numbers of a plain einsum, gradients summed in float32."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from contextjax.models.linear import Dense, product, spread
from contextjax.sharding import activations, make_mesh

AXES = {
    "...i,io->...o": (16, 24),
    "...w,wtd->t...d": (16, 3, 8),
    "...w,wo->...o": (16, 4),
    "...w,wth->t...h": (16, 3, 2),
}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("lead", [(), (5,), (4, 5), (2, 3, 4)])
def test_products_and_their_gradients_are_einsums(axes, lead):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((*lead, 16), AXES[axes]))
    weights = jnp.asarray(rng.normal(size=jnp.einsum(axes, x, kernel).shape), jnp.float32)
    plain = lambda x, kernel: (jnp.einsum(axes, x, kernel) * weights).sum()
    ours = lambda x, kernel: (product(axes, x, kernel) * weights).sum()
    expected = jax.value_and_grad(plain, argnums=(0, 1))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), expected,
                 jax.value_and_grad(ours, argnums=(0, 1))(x, kernel))  # fmt: skip


def test_a_wide_input_is_not_transposed_in_memory_for_the_kernels_gradient():
    a, b, cotangent = jnp.ones((4, 24, 512)), jnp.ones((4, 24, 512)), jnp.ones((4, 24, 64))
    compiled = lambda function: jax.jit(function).lower(a, b, cotangent).compile().as_text()
    plain = compiled(lambda a, b, cotangent: jnp.einsum("ABi,ABo->io", a * b, cotangent))
    multiply = lambda a, b: lambda kernel: product("...i,io->...o", a * b, kernel)
    ours = compiled(lambda a, b, cotangent: jax.vjp(multiply(a, b), jnp.ones((512, 64)))[1](cotangent))
    assert "f32[512,96]" in plain and "f32[512,96]" not in ours


def error(got, expected):
    """Root mean square of the difference, relative to the expected values'."""
    return float(np.sqrt(np.mean((np.asarray(got, np.float64) - expected) ** 2) / np.mean(expected**2)))


def test_a_sum_over_devices_is_not_rounded_to_bfloat16():
    """Compared with the exact gradient of the same bfloat16 inputs, from which sums in bfloat16 are far."""
    mesh, rows, width = make_mesh("data:8"), 1024, 32
    rng = np.random.default_rng(0)
    x, wanted = (jnp.asarray(rng.normal(size=(rows, width)) + 0.5, jnp.bfloat16) for _ in range(2))
    layer = Dense(width, dtype=jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)["params"]
    loss = lambda params, x, wanted: (layer.apply({"params": params}, x) * wanted).astype(jnp.float32).sum()
    cut = NamedSharding(mesh, PartitionSpec("data"))
    with activations(mesh):
        got = jax.jit(jax.grad(loss))(params, jax.device_put(x, cut), jax.device_put(wanted, cut))
    exact = np.asarray(x, np.float64).T @ np.asarray(wanted, np.float64)
    assert error(got["kernel"], exact) < 1e-6
    assert error(got["bias"], np.asarray(wanted, np.float64).sum(0)) < 1e-6
    shares = [np.asarray(a, np.float64).T @ np.asarray(b, np.float64)
              for a, b in zip(np.split(np.asarray(x), 8), np.split(np.asarray(wanted), 8), strict=True)]  # fmt: skip
    total = np.zeros_like(exact, ml_dtypes.bfloat16)
    for share in shares:  # as a ring adds them up
        total = (total.astype(np.float32) + share.astype(ml_dtypes.bfloat16).astype(np.float32)).astype(total.dtype)
    assert 1e-3 < error(total, exact) < 1e-2


def test_a_spread_parameter_has_the_type_of_what_it_is_added_to_and_a_gradient_of_its_own():
    like = jnp.zeros((4096, 2), jnp.bfloat16)
    bias = jnp.asarray([1.0, 2.0], jnp.float32)
    assert spread(bias, like).dtype == jnp.bfloat16
    gradient = jax.grad(lambda bias: (spread(bias, like) * jnp.bfloat16(1.0)).astype(jnp.float32).sum())(bias)
    np.testing.assert_array_equal(gradient, [4096.0, 4096.0])
