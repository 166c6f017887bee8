"""Adapters of a frozen image tower: several scales of its states, added to the last (ContextBLIP, arXiv 2405.19226).

The scales of the paper are layers: tokens after several blocks ("taps"). The published summary of ContextBLIP describes
a simpler form of adapter and masking, here called the summary form: convolutions of several sizes over the patch grid
instead of taps, and predicting which patches a text attends to instead of their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from contextjax.models.layers import dense, logical
from contextjax.models.linear import spread

# PyTorch's default for a Linear: uniform within 1 / sqrt(fan in).
TORCH_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MultiScaleAdapter(nn.Module):
    """The paper's adapter: x + relu(up([relu(down_l(tap_l)) for each tap])) on every token, without biases.

    x is the last tap. With `zero_init` the sum is scaled by a learned vector that begins at zero, so that the adapter
    begins as the identity (a zero `up` behind a ReLU would never learn).
    """

    reduction: int = 2
    zero_init: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, taps: Sequence[Float[Array, "*b n w"]], visible: Any = None) -> Float[Array, "*b n w"]:
        """Adapts tokens; `taps` are tokens after the final LayerNorm, `visible` is used by the other adapter alone."""
        return taps[-1] + expand(
            self, [reduce(self, tap, f"down_{i}") for i, tap in enumerate(taps)], taps[-1].shape[-1]
        )


class ConvolutionalAdapter(nn.Module):
    """The summary form of the adapter: depthwise convolutions of 1, 3 and 5 patches, and the mean of all tokens.

    The convolutions run over the grid of the last tap, on which patches that are not visible are zeros. CLS, which has
    no place on the grid, gets the mean of what a convolution makes of the patches.
    """

    grid: int  # patches a side
    reduction: int = 2
    zero_init: bool = False
    dtype: Any = None
    sizes: tuple[int, ...] = (1, 3, 5)

    @nn.compact
    def __call__(
        self, taps: Sequence[Float[Array, "b n w"]], visible: Int[Array, "b v"] | None = None
    ) -> Float[Array, "b n w"]:
        """Adapts tokens of all patches in raster order, or of the patches of the numbers `visible`, CLS first."""
        x = taps[-1]
        hidden = reduce(self, x, "down")
        patches = hidden[:, 1:]
        place = jnp.broadcast_to(jnp.arange(self.grid**2), (x.shape[0], self.grid**2)) if visible is None else visible
        empty = jnp.zeros((x.shape[0], self.grid**2, hidden.shape[-1]), hidden.dtype)
        grid = jax.vmap(lambda empty, place, x: empty.at[place].set(x))(empty, place, patches)
        grid = grid.reshape(x.shape[0], self.grid, self.grid, -1)
        scales = [jnp.broadcast_to(hidden.mean(axis=1, keepdims=True), hidden.shape)]
        for size in self.sizes:
            kernel = logical(nn.initializers.lecun_normal(), None, None, None, "mlp")
            convolve = nn.Conv(
                hidden.shape[-1], (size, size), feature_group_count=hidden.shape[-1], use_bias=False,
                kernel_init=kernel, dtype=jnp.float32, name=f"scale_{size}",
            )  # fmt: skip
            flat = convolve(grid).astype(hidden.dtype).reshape(empty.shape)  # the gradient is summed in float32
            seen = jnp.take_along_axis(flat, place[..., None], axis=1)
            scales.append(jnp.concatenate([seen.mean(axis=1, keepdims=True), seen], axis=1))
        return x + expand(self, scales, x.shape[-1])


def reduce(adapter: Any, x: Float[Array, "*b n w"], name: str) -> Float[Array, "*b n r"]:
    """Applies relu(Linear) to a width r that is `reduction` times smaller."""
    width = x.shape[-1] // adapter.reduction
    layer = dense(width, ("embed", "mlp"), name=name, use_bias=False, dtype=adapter.dtype, init=TORCH_LINEAR)
    return jax.nn.relu(layer(x))


def expand(adapter: Any, scales: Sequence[Float[Array, "*b n r"]], width: int) -> Float[Array, "*b n w"]:
    """Applies relu(Linear) to all scales side by side, back to the tower's width."""
    layer = dense(width, ("mlp", "embed"), name="up", use_bias=False, dtype=adapter.dtype, init=TORCH_LINEAR)
    added = jax.nn.relu(layer(jnp.concatenate(scales, axis=-1)))
    if adapter.zero_init:
        added = added * spread(adapter.param("gate", logical(nn.initializers.zeros, "embed"), (width,)), added)
    return added
