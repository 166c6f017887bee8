"""Text-guided masked image modelling: which patches a text looks at, and guessing their pixels (ContextBLIP)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.adapter import TORCH_LINEAR
from contextjax.models.layers import dense, logical, placed
from contextjax.models.multimodal import BertBlock, Context

NOISE = 0.02  # scale of the noise on mask scores


def mask_scores(
    attention: Float[Array, "b t i"], position: Int[Array, " b"], noise: Float[Array, "b patches"]
) -> Float[Array, "b patches"]:
    """How much the token at `position` of each text reads each patch, at norm one, plus noise in [0, NOISE).

    `attention` is over image tokens, CLS first, whose column is dropped (without making the rest sum to one, as
    published); `noise` is uniform in [0, 1).
    """
    read = jnp.take_along_axis(attention[..., 1:], position[:, None, None], axis=1)[:, 0]
    # All attention may be on CLS: then the noise alone decides.
    return read / jnp.maximum(jnp.linalg.norm(read, axis=-1, keepdims=True), 1e-12) + NOISE * noise


def split_patches(
    scores: Float[Array, "b patches"], count: int
) -> tuple[Int[Array, "b masked"], Int[Array, "b visible"]]:
    """The `count` patches of the highest scores, which are masked, and the others; both by descending score."""
    order = jnp.argsort(-scores, axis=-1)
    return order[:, :count], order[:, count:]


def scramble(patches: Float[Array, "*b pixels"]) -> Float[Array, "*b pixels"]:
    """What the published code shows of a visible patch: (row, column, channel) taken for (channel, row, column).

    Kept for comparison with published numbers; the pixels of a patch are out of order.
    """
    side = round((patches.shape[-1] / 3) ** 0.5)
    taken = patches.reshape(*patches.shape[:-1], 3, side, side)
    return jnp.moveaxis(taken, -3, -1).reshape(patches.shape)


class TextAdapter(nn.Module):
    """relu(Linear), relu(Linear) through half the width, added to text states; no biases."""

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

    A masked patch enters as one learned vector plus its position, a visible one as its token.
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
        """Pixels of the masked patches, in the order of `masked`.

        Args:
          tokens: CLS and the visible patches, in the order of `visible`.
          masked: numbers of the masked patches, in raster order.
          visible: of the visible ones.
          text: states of the text that is read.
          mask: its real tokens.
        """
        normal = nn.initializers.normal(0.02)
        width, patches = tokens.shape[-1], masked.shape[1] + visible.shape[1]
        slot = self.param("mask_embedding", logical(normal, "embed"), (width,)).astype(tokens.dtype)
        positions = self.param("position_embedding", logical(normal, None, "embed"), (1 + patches, width))
        # By patch, CLS not counted, as published: the last is spare.
        slots = slot + placed(positions.astype(tokens.dtype), first=None)[masked]
        # Where each patch of the raster stands among CLS, the visible and the masked ones.
        rank = jnp.argsort(jnp.concatenate([visible, masked], axis=1), axis=1) + 1
        rank = jnp.concatenate([jnp.zeros((len(rank), 1), rank.dtype), rank], axis=1)
        x = jnp.take_along_axis(jnp.concatenate([tokens, slots], axis=1), rank[..., None], axis=1)
        context = Context(TextAdapter(self.dtype, name="text_adapter")(text), mask[:, None, None, :])
        everything = jnp.ones((1, 1, 1, 1 + patches), bool)
        carry = (x, jnp.zeros((*x.shape[:2], text.shape[1])))
        for i in range(self.layers):
            block = BertBlock(self.heads, self.mlp, "gelu", 1e-12, self.dtype, name=f"layer_{i}")
            carry = block(carry, everything, context)
        x = jnp.take_along_axis(carry[0], 1 + masked[..., None], axis=1)
        return dense(self.pixels, ("embed", None), name="pixels", dtype=self.dtype)(x)
