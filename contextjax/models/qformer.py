"""The Q-Former of BLIP-2: learned query tokens read a picture, and a text beside them (Li et al. 2023, section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.layers import (
    REMATS,
    CrossAttention,
    Mlp,
    SelfAttention,
    embed_tokens,
    layer_norm,
    logical,
    placed,
)
from contextjax.models.linear import spread
from contextjax.models.multimodal import Context
from contextjax.models.text import TextOutput


@dataclasses.dataclass(frozen=True)
class QFormerConfig:
    """Sizes and options of a Q-Former. `scan` has no effect: layers differ, and cannot be stacked."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    mlp: int
    query_tokens: int = 32
    cross_every: int = 2  # layers 0, cross_every, 2 cross_every, ... read the picture
    activation: str = "gelu"
    epsilon: float = 1e-12
    scan: bool = False
    remat: str = "none"  # see layers.REMATS
    attention: str = "xla"


class QFormerBlock(nn.Module):
    """BERT's post-LN block on query tokens and a text side by side.

    All tokens attend to each other. Query tokens alone read the picture, and have a feed-forward network of their own.
    """

    config: QFormerConfig
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n width"], mask: Bool[Array, ...], queries: int, context: Context | None
    ) -> Float[Array, "*b n width"]:
        """Returns the next states; the first `queries` of the tokens are query tokens.

        `context`: the tokens that they read; None in layers that read none.
        """
        c = self.config
        norm = lambda name: layer_norm(c.epsilon, name=name, dtype=self.dtype)
        own = SelfAttention(c.heads, self.dtype, attention=c.attention, name="attention")
        x = placed(norm("attention_norm")(x + own(x, mask)))
        query, text = x[..., :queries, :], x[..., queries:, :]
        parts = []
        if queries:
            if context is not None:
                read = CrossAttention(c.heads, self.dtype, name="cross_attention")
                added, _ = read(query, context.tokens, context.mask, rows=context.rows)
                query = placed(norm("cross_attention_norm")(query + added))
            added = Mlp(c.mlp, c.activation, self.dtype, name="query_mlp")(query)
            parts.append(norm("query_mlp_norm")(query + added))
        if text.shape[-2]:
            added = Mlp(c.mlp, c.activation, self.dtype, name="mlp")(text)
            parts.append(norm("mlp_norm")(text + added))
        return placed(parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-2))


class QFormer(nn.Module):
    """A transformer over learned query tokens, which read a picture, and a text; either may be left out."""

    config: QFormerConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        normal = nn.initializers.normal(0.02)
        self.query_tokens = self.param("query_tokens", logical(normal, None, "embed"), (c.query_tokens, c.width))
        self.token_embedding = nn.Embed(c.vocabulary, c.width, embedding_init=logical(normal, "vocab", "embed"))
        self.position_embedding = self.param(
            "position_embedding", logical(normal, None, "embed"), (c.positions, c.width)
        )
        self.embedding_norm = layer_norm(c.epsilon, dtype=self.dtype)
        block = QFormerBlock if c.remat == "none" else nn.remat(QFormerBlock, policy=REMATS[c.remat], static_argnums=3)
        self.layer = [block(c, self.dtype) for _ in range(c.layers)]

    def __call__(self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]) -> TextOutput:
        """Returns states and pooled state of texts by themselves; no query token takes part."""
        states = self._run(self._embed(ids), mask[..., None, None, :], 0, None)
        return TextOutput(states, states[..., 0, :])

    def read_image(self, tokens: Float[Array, "*b i image_width"]) -> Float[Array, "*b q width"]:
        """Returns the states of query tokens that have read image tokens (after the final LayerNorm)."""
        shape = (*tokens.shape[:-2], self.config.query_tokens, self.config.width)
        every = jnp.ones((1,) * (len(shape) + 1), bool)
        return self._run(self._queries(shape), every, self.config.query_tokens, Context(tokens))

    def read_both(
        self, tokens: Float[Array, "... i image_width"], ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"],
        rows: Any = None,
    ) -> Float[Array, "*b q width"]:  # fmt: skip
        """Returns the states of query tokens beside a text that have read image tokens.

        `rows` [N]: the picture that each of N texts belongs to; None: the leading axes of both broadcast.
        """
        count = self.config.query_tokens
        x = jnp.concatenate([self._queries((*ids.shape[:-1], count, self.config.width)), self._embed(ids)], axis=-2)
        mask = jnp.concatenate([jnp.ones((*mask.shape[:-1], count), bool), mask], axis=-1)
        states = self._run(x, mask[..., None, None, :], count, Context(tokens, rows=rows))
        return states[..., :count, :]

    def _queries(self, shape: tuple[Any, ...]) -> Float[Array, "*b q width"]:
        return spread(self.query_tokens, jnp.zeros(shape, self.dtype or jnp.float32))

    def _embed(self, ids: Int[Array, "*b t"]) -> Float[Array, "*b t width"]:
        x = embed_tokens(self.token_embedding, ids, self.dtype)
        return x + spread(self.position_embedding[: ids.shape[-1]], x)

    def _run(self, x: Any, mask: Any, queries: int, context: Context | None) -> Any:
        x = self.embedding_norm(x)
        for i, layer in enumerate(self.layer):
            x = layer(x, mask, queries, context if i % self.config.cross_every == 0 else None)
        return x
