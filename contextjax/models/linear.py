"""Products with parameters, whose gradients are summed in float32 however a tower computes.

Where devices hold rows of a batch each, a parameter's gradient is a sum over all of them. A parameter that is cast to
bfloat16 before it is used has a gradient in bfloat16, and TPUs and GPUs would round each device's share and every
partial sum. Here the cast is part of the product, and its gradient leaves the product in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from contextjax.models.placed import platform


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(axes: str, x: Array, kernel: Array) -> Array:
    """Multiplies by a float32 kernel in the type of `x`; the kernel's gradient is summed in float32.

    Args:
      axes: an einsum of the two, as "...i,io->...o"; "..." stands in the input and in the output.
      x: the input.
      kernel: a parameter.
    """
    return _multiply(axes, x, kernel)


def _multiply(axes: str, x: Array, kernel: Array) -> Array:
    return jnp.einsum(axes, x, kernel.astype(x.dtype))


def _forward(axes: str, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    # Not `product`: what is to be kept for the gradient (remat) is decided by einsum's own operations.
    return _multiply(axes, x, kernel), (x, kernel)


def _backward(axes: str, inputs: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    given, made = axes.split("->")
    given, used = given.split(",")
    # Named one by one: an einsum sums no "..." away.
    lead = "ABCDEFGH"[: x.ndim - len(given.replace("...", ""))]
    named = lambda text: text.replace("...", lead)
    to_x = jnp.einsum(f"{named(made)},{used}->{named(given)}", cotangent, kernel.astype(x.dtype))
    return to_x, _kernel_gradient(named(given), named(made), used, x, cotangent, kernel.dtype)


def _kernel_gradient(given: str, made: str, used: str, x: Array, cotangent: Array, dtype: Any) -> Array:
    """Returns the gradient of the kernel, with the axes that `used` names, from the input and the output's gradient.

    XLA's CPU compiler transposes the first factor of this product in memory, which takes longer than the product where
    the factor is wide. On CPUs the narrower factor comes first; the barrier stops the compiler from swapping the two.
    """
    if x.size <= cotangent.size or platform() != "cpu":
        return jnp.einsum(f"{given},{made}->{used}", x, cotangent, preferred_element_type=dtype)
    axes = "".join(axis for axis in made + given if axis in used)
    gradient = jnp.einsum(f"{made},{given}->{axes}", cotangent, x, preferred_element_type=dtype)
    return jnp.einsum(f"{axes}->{used}", jax.lax.optimization_barrier(gradient))


product.defvjp(_forward, _backward)


def spread(parameter: Float[Array, ...], like: Array) -> Array:
    """Broadcasts a parameter to the shape and type of `like`, in this order: its gradient is summed before the cast."""
    return jnp.broadcast_to(parameter, like.shape).astype(like.dtype)


class Dense(nn.Module):
    """A Linear layer, as flax.linen.Dense, with the gradients of its parameters summed in float32."""

    features: int
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*b width"]) -> Float[Array, "*b features"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        x = x.astype(self.dtype or jnp.result_type(x, kernel))
        y: Array = product("...i,io->...o", x, kernel)
        if self.use_bias:
            y = y + spread(self.param("bias", self.bias_init, (self.features,)), y)
        return y
