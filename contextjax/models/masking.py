"""Text-guided masked image modelling (ContextBLIP, stage 1): masks what a text attends to and predicts its pixels."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.adapter import TORCH_LINEAR
from contextjax.models.layers import dense, logical, placed
from contextjax.models.linear import spread
from contextjax.models.multimodal import BertBlock, Context

NOISE = 0.02  # scale of the noise on mask scores


def mask_scores(
    attention: Float[Array, "b t i"], position: Int[Array, " b"], noise: Float[Array, "b patches"]
) -> Float[Array, "b patches"]:
    """Returns the attention of one token of each text to each patch, L2-normalised, plus noise in [0, NOISE).

    Args:
      attention: of each token to the image tokens. The column of CLS is dropped, and the rest not renormalised to sum
        one, as published.
      position: the token of each text.
      noise: uniform in [0, 1).
    """
    read = jnp.take_along_axis(attention[..., 1:], position[:, None, None], axis=1)[:, 0]
    # Where all attention is on CLS, the noise alone decides.
    return read / jnp.maximum(jnp.linalg.norm(read, axis=-1, keepdims=True), 1e-12) + NOISE * noise


def split_patches(
    scores: Float[Array, "b patches"], count: int
) -> tuple[Int[Array, "b masked"], Int[Array, "b visible"]]:
    """Returns the numbers of the `count` patches of the highest scores (masked) and of the others, by falling score."""
    order = jnp.argsort(-scores, axis=-1)
    return order[:, :count], order[:, count:]


def scramble(patches: Float[Array, "*b pixels"]) -> Float[Array, "*b pixels"]:
    """Reorders the pixels of visible patches as the published code does, for comparison with published numbers.

    That code reads pixels in (row, column, channel) order as if they were in (channel, row, column) order.
    """
    side = round((patches.shape[-1] / 3) ** 0.5)
    taken = patches.reshape(*patches.shape[:-1], 3, side, side)
    return jnp.moveaxis(taken, -3, -1).reshape(patches.shape)


class TextAdapter(nn.Module):
    """Residual adapter of text states: x + relu(up(relu(down(x)))) through half the width, without biases."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b w"]) -> Float[Array, "*b w"]:
        half, width = x.shape[-1] // 2, x.shape[-1]
        linear = lambda size, axes, name: dense(
            size, axes, name=name, use_bias=False, dtype=self.dtype, init=TORCH_LINEAR
        )
        hidden = jax.nn.relu(linear(half, ("embed", "mlp"), "down")(x))
        return x + jax.nn.relu(linear(width, ("mlp", "embed"), "up")(hidden))


class ReconstructionDecoder(nn.Module):
    """Post-LN blocks over all patches in raster order, CLS first, that read the text; then a Linear to pixels.

    A masked patch enters as a learned vector, the same for all, plus its position; a visible one as its token.
    """

    layers: int
    heads: int
    mlp: int
    pixels: int  # features of a patch
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b n w"],
        masked: Int[Array, "b m"],
        visible: Int[Array, "b v"],
        text: Float[Array, "b t text_width"],
        mask: Bool[Array, "b t"],
    ) -> Float[Array, "b m pixels"]:
        """Returns the predicted pixels of the masked patches, in the order of `masked`.

        Args:
          tokens: CLS and the visible patches, in the order of `visible`.
          masked: numbers of the masked patches; a number counts patches in raster order.
          visible: numbers of the visible patches.
          text: states of the text that is read.
          mask: True for real tokens of the text.
        """
        normal = nn.initializers.normal(0.02)
        width, patches = tokens.shape[-1], masked.shape[1] + visible.shape[1]
        slot = self.param("mask_embedding", logical(normal, "embed"), (width,))
        positions = self.param("position_embedding", logical(normal, None, "embed"), (1 + patches, width))
        # The table is indexed by patch, CLS not counted, as published: its last row is unused.
        slots = placed(positions, first=None)[masked].astype(tokens.dtype)
        slots = spread(slot, slots) + slots
        # The place of each patch of the raster in [CLS, visible patches, masked patches].
        rank = jnp.argsort(jnp.concatenate([visible, masked], axis=1), axis=1) + 1
        rank = jnp.concatenate([jnp.zeros((len(rank), 1), rank.dtype), rank], axis=1)
        x = jnp.take_along_axis(jnp.concatenate([tokens, slots], axis=1), rank[..., None], axis=1)
        context = Context(TextAdapter(self.dtype, name="text_adapter")(text), mask[:, None, None, :])
        everything = jnp.ones((1, 1, 1, 1 + patches), bool)
        carry = (x, None, None)
        for i in range(self.layers):
            block = BertBlock(self.heads, self.mlp, "gelu", 1e-12, self.dtype, name=f"layer_{i}")
            carry = block(carry, everything, context)
        x = jnp.take_along_axis(carry[0], 1 + masked[..., None], axis=1)
        return dense(self.pixels, ("embed", None), name="pixels", dtype=self.dtype)(x)
