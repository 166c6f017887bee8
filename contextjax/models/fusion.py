"""Fusion of ConText-CIR: image tokens read the text by cross-attention (arXiv 2505.20764)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from contextjax.models.layers import CrossAttention, Mlp, SelfAttention, layer_norm, placed


class FusionBlock(nn.Module):
    """Pre-LN block on image tokens v: v += CrossAttention(LN(v), text); v += Mlp(LN(v)).

    Both branches are zero at the start, so that the block begins as the identity. The text is neither normalised nor
    updated. With `self_attention`, v += SelfAttention(LN(v)), zero at the start too, comes between the two. This is not
    in the paper; small towers need it to move things between patches, such as to swap two objects.
    """

    heads: int
    activation: str
    epsilon: float
    self_attention: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        v: Float[Array, "*#batch i width"],
        text: Float[Array, "*#batch t text_width"],
        mask: Bool[Array, "*#batch t"],
    ) -> tuple[Float[Array, "*batch i width"], Float[Array, "*batch heads i t"]]:
        """Returns (new image tokens, attention weights over the text's tokens)."""
        norm = lambda name: layer_norm(self.epsilon, name=name, dtype=self.dtype)
        zeros = nn.initializers.zeros
        cross = CrossAttention(self.heads, self.dtype, out_init=zeros, name="cross_attention")
        read, weights = cross(norm("cross_attention_norm")(v), text, mask[..., None, None, :])
        v = placed(v + read)
        if self.self_attention:
            exchange = SelfAttention(self.heads, self.dtype, zeros, name="self_attention")
            v = placed(v + exchange(norm("self_attention_norm")(v)))
        mlp = Mlp(4 * v.shape[-1], self.activation, self.dtype, out_init=zeros, name="mlp")
        return placed(v + mlp(norm("mlp_norm")(v))), weights
