"""Adapters of a frozen image tower: several scales of its states, added to the last (ContextBLIP, arXiv 2405.19226).

The paper's scales are layers: taps after several blocks. A summary of the paper in circulation (a "card") describes
convolutions of several sizes over the patch grid instead; both are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from contextjax.models.layers import dense, logical

# PyTorch's default for a Linear: uniform within 1 / sqrt(fan in).
TORCH_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MultiScaleAdapter(nn.Module):
    """x + relu(up([relu(down_l(tap_l)) for each tap])), on every token; x is the last tap. No biases.

    With `zero_init` the sum is scaled by a learned vector that begins at zero, so that the adapter begins as the
    identity (a zero `up` behind a ReLU would never learn).
    """

    reduction: int = 2
    zero_init: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, taps: Sequence[Float[Array, "*b n w"]], visible: Any = None) -> Float[Array, "*b n w"]:
        """`taps` are token states after the final LayerNorm; `visible` is what the other adapter needs."""
        return taps[-1] + expand(
            self, [reduce(self, tap, f"down_{i}") for i, tap in enumerate(taps)], taps[-1].shape[-1]
        )


class ConvolutionalAdapter(nn.Module):
    """The card's form: convolutions of 1, 3 and 5 patches and the mean of all patches, over the last tap's grid.

    Patches that are not visible count as zeros; CLS, which has no place on the grid, is read as it is.
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
        """`taps` are token states after the final LayerNorm, of all patches in raster order or of `visible` ones."""
        x = taps[-1]
        hidden = reduce(self, x, "down")
        cls, patches = hidden[:, :1], hidden[:, 1:]
        place = jnp.broadcast_to(jnp.arange(self.grid**2), (x.shape[0], self.grid**2)) if visible is None else visible
        empty = jnp.zeros((x.shape[0], self.grid**2, hidden.shape[-1]), hidden.dtype)
        grid = jax.vmap(lambda empty, place, x: empty.at[place].set(x))(empty, place, patches)
        grid = grid.reshape(x.shape[0], self.grid, self.grid, -1)
        scales = [jnp.broadcast_to(hidden.mean(axis=1, keepdims=True), hidden.shape)]
        for size in self.sizes:
            kernel = logical(nn.initializers.lecun_normal(), None, None, None, "mlp")
            convolve = nn.Conv(
                hidden.shape[-1], (size, size), feature_group_count=hidden.shape[-1], use_bias=False,
                kernel_init=kernel, dtype=self.dtype, name=f"scale_{size}",
            )  # fmt: skip
            flat = convolve(grid).reshape(empty.shape)
            scales.append(jnp.concatenate([cls, jnp.take_along_axis(flat, place[..., None], axis=1)], axis=1))
        return x + expand(self, scales, x.shape[-1])


def reduce(adapter: Any, x: Float[Array, "*b n w"], name: str) -> Float[Array, "*b n r"]:
    """relu(Linear), to a width that is `reduction` times smaller."""
    width = x.shape[-1] // adapter.reduction
    layer = dense(width, ("embed", "mlp"), name=name, use_bias=False, dtype=adapter.dtype, init=TORCH_LINEAR)
    return jax.nn.relu(layer(x))


def expand(adapter: Any, scales: Sequence[Float[Array, "*b n r"]], width: int) -> Float[Array, "*b n w"]:
    """relu(Linear) of all scales side by side, back to the tower's width."""
    layer = dense(width, ("mlp", "embed"), name="up", use_bias=False, dtype=adapter.dtype, init=TORCH_LINEAR)
    added = jax.nn.relu(layer(jnp.concatenate(scales, axis=-1)))
    if adapter.zero_init:
        added = added * adapter.param("gate", logical(nn.initializers.zeros, "embed"), (width,)).astype(added.dtype)
    return added
