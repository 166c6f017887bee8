"""CLIP's causal text tower."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from contextjax.models.layers import TransformerBlock, layer_norm, logical


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of a text tower; the defaults are CLIP's."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5


class TextOutput(NamedTuple):
    """states [..., T, width], after the final LayerNorm; pooled [..., width], the state at the last real token."""

    states: Any
    pooled: Any


class TextTransformer(nn.Module):
    """Causal transformer; a text ends with EOS, whose state is the pooled one."""

    config: TextConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, ids: Int[Array, "*batch t"], mask: Bool[Array, "*batch t"]) -> TextOutput:
        c = self.config
        lead, length = ids.shape[:-1], ids.shape[-1]
        ids, mask = ids.reshape(-1, length), mask.reshape(-1, length)
        embedding = nn.Embed(
            c.vocabulary,
            c.width,
            dtype=self.dtype,
            embedding_init=logical(nn.initializers.normal(0.02), "vocab", "embed"),
            name="token_embedding",
        )
        normal = logical(nn.initializers.normal(0.01), None, "embed")
        positions = self.param("position_embedding", normal, (c.positions, c.width))
        x = embedding(ids)
        x = x + positions[:length].astype(x.dtype)
        causal = jnp.tril(jnp.ones((length, length), bool))  # padding stands last: causality hides it from real tokens
        for i in range(c.layers):
            x = TransformerBlock(c.heads, c.mlp, c.activation, c.epsilon, self.dtype, name=f"layer_{i}")(x, causal)
        states = layer_norm(c.epsilon, name="final_norm", dtype=self.dtype)(x)
        pooled = jnp.take_along_axis(states, last_token(mask)[:, None, None], axis=1)[:, 0]
        return TextOutput(states.reshape(*lead, length, c.width), pooled.reshape(*lead, c.width))


def last_token(mask: Bool[Array, "batch t"]) -> Int[Array, " batch"]:
    """Position of the last real token of each row."""
    return jnp.maximum(mask.sum(-1) - 1, 0)
