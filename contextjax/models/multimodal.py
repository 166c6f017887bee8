"""BERT as a text encoder that may read image tokens by cross-attention (BLIP; Li et al. 2022, section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.layers import (
    CrossAttention,
    Mlp,
    SelfAttention,
    embed_tokens,
    layer_norm,
    logical,
    placed,
    run_blocks,
)
from contextjax.models.linear import spread
from contextjax.models.text import TextOutput


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes and options of a BERT encoder (Devlin et al. 2019), without token types."""

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
    remat: str = "none"
    attention: str = "xla"


class Context(NamedTuple):
    """The tokens that texts [..., N, T] read. Keys and values are computed once for each of C contexts."""

    tokens: Any  # [..., C, I, width]: C is N, or 1 where all texts read the same, or any number with `rows`
    mask: Any = None  # True where a token may be read; broadcasts against [..., N, heads, T, I]
    rows: Any = None  # int [N]: the context that each text reads


class BertBlock(nn.Module):
    """Post-LN block: x = LN(x + SelfAttention(x)); x = LN(x + CrossAttention(x, context)); x = LN(x + Mlp(x)).

    Without a context the cross-attention is left out. Dropout applies to what each branch adds, where `apply` is given
    a "dropout" key.
    """

    heads: int
    mlp: int
    activation: str
    epsilon: float
    dtype: Any = None
    dropout: float = 0.0
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "*batch t width"], Any, Any],
        mask: Bool[Array, ...],
        context: Context | None = None,
    ):
        """Returns the next carry: x, and the attention [..., T, I] to the context, mean over heads: sum and last.

        The sum is over the blocks so far, the last is that of this block.

        Args:
          carry: that of the block before.
          mask: True where a token may be seen; broadcasts against [..., heads, T, T].
          context: tokens that the text reads.
        """
        x, attention, last = carry
        norm = lambda name: layer_norm(self.epsilon, name=name, dtype=self.dtype)
        drop = lambda y: nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(y)
        own = SelfAttention(self.heads, self.dtype, attention=self.attention, name="attention")
        x = placed(norm("attention_norm")(x + drop(own(x, mask))))
        if context is not None:
            read = CrossAttention(self.heads, self.dtype, name="cross_attention")
            added, weights = read(x, context.tokens, context.mask, rows=context.rows)
            x = placed(norm("cross_attention_norm")(x + drop(added)))
            last = weights.mean(-3).astype(jnp.float32)
            attention = last + (0.0 if attention is None else attention)
        added = Mlp(self.mlp, self.activation, self.dtype, name="mlp")(x)
        return placed(norm("mlp_norm")(x + drop(added))), attention, last


class BertEncoder(nn.Module):
    """Bidirectional text encoder whose pooled state is that of the first token."""

    config: BertConfig
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "*batch t"],
        mask: Bool[Array, "*batch t"],
        context: Context | None = None,
    ) -> TextOutput:
        """Returns the states of texts by themselves or, with a context (image tokens), of texts that read it."""
        c = self.config
        normal = nn.initializers.normal(0.02)
        embed = nn.Embed(
            c.vocabulary, c.width, embedding_init=logical(normal, "vocab", "embed"),
            name="token_embedding",
        )  # fmt: skip
        positions = self.param("position_embedding", logical(normal, None, "embed"), (c.positions, c.width))
        x = embed_tokens(embed, ids, self.dtype)
        x = layer_norm(c.epsilon, name="embedding_norm", dtype=self.dtype)(x + spread(positions[: ids.shape[-1]], x))
        attention = None if context is None else jnp.zeros((*ids.shape, context.tokens.shape[-2]))
        inputs = (mask[..., None, None, :], *(() if context is None else (context,)))
        (x, attention, last), _ = run_blocks(BertBlock, c, self.dtype, (x, attention, attention), *inputs)
        return TextOutput(x, x[..., 0, :], None if attention is None else attention / c.layers, last)
