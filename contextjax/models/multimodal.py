"""BERT as a text encoder that may read image tokens by cross-attention (BLIP; Li et al. 2022, section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.layers import CrossAttention, Mlp, SelfAttention, layer_norm, logical, run_blocks
from contextjax.models.text import TextOutput


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder (Devlin et al. 2019), without token types."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "gelu"
    epsilon: float = 1e-12
    cross_attention: bool = True
    scan: bool = False  # see layers.run_blocks
    remat: bool = False


class BertBlock(nn.Module):
    """Post-LN block: x = LN(x + SelfAttention(x)); x = LN(x + CrossAttention(x, context)); x = LN(x + Mlp(x)).

    Without a context the cross-attention is left out.
    """

    heads: int
    mlp: int
    activation: str
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch t width"],
        mask: Bool[Array, ...],
        context: Float[Array, "*batch i context_width"] | None = None,
    ):
        norm = lambda name: layer_norm(self.epsilon, name=name, dtype=self.dtype)
        x = norm("attention_norm")(x + SelfAttention(self.heads, self.dtype, name="attention")(x, mask))
        if context is not None:
            read, _ = CrossAttention(self.heads, self.dtype, name="cross_attention")(x, context)
            x = norm("cross_attention_norm")(x + read)
        return norm("mlp_norm")(x + Mlp(self.mlp, self.activation, self.dtype, name="mlp")(x))


class BertEncoder(nn.Module):
    """Bidirectional text encoder; the pooled state is that of the first token."""

    config: BertConfig
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "*batch t"],
        mask: Bool[Array, "*batch t"],
        context: Float[Array, "*batch i context_width"] | None = None,
    ) -> TextOutput:
        """States of the texts; with `context` (image tokens), of the texts as they read it."""
        c = self.config
        normal = nn.initializers.normal(0.02)
        embed = nn.Embed(
            c.vocabulary, c.width, dtype=self.dtype, embedding_init=logical(normal, "vocab", "embed"),
            name="token_embedding",
        )  # fmt: skip
        positions = self.param("position_embedding", logical(normal, None, "embed"), (c.positions, c.width))
        x = embed(ids)
        x = layer_norm(c.epsilon, name="embedding_norm", dtype=self.dtype)(
            x + positions[: ids.shape[-1]].astype(x.dtype)
        )
        inputs = (mask[..., None, None, :], *(() if context is None else (context,)))
        x = run_blocks(BertBlock, c, self.dtype, x, *inputs)
        return TextOutput(x, x[..., 0, :])
