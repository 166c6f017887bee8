"""CLIP's causal text tower."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from contextjax.models.layers import TransformerBlock, embed_tokens, layer_norm, logical, run_blocks


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
    # Whose state is the pooled one: the first token of this id (2, in configs of 2021 to 2023: the first of the
    # largest id); None: the last real token.
    eos_token: int | None = None
    scan: bool = False  # see layers.run_blocks
    remat: str = "none"
    attention: str = "xla"


class TextOutput(NamedTuple):
    """states [..., T, width], after the final LayerNorm; pooled [..., width], the state of a text as a whole."""

    states: Any
    pooled: Any
    attention: Any = None  # [..., T, I]: of a text that reads image tokens, mean over blocks and heads


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
        x = embed_tokens(embedding, ids)
        x = x + positions[:length].astype(x.dtype)
        seen = jnp.tril(jnp.ones((length, length), bool)) & mask[:, None, None, :]
        x, _ = run_blocks(TransformerBlock, c, self.dtype, x, seen)
        states = layer_norm(c.epsilon, name="final_norm", dtype=self.dtype)(x)
        pooled = jnp.take_along_axis(states, pooled_position(ids, mask, c.eos_token)[:, None, None], axis=1)[:, 0]
        return TextOutput(states.reshape(*lead, length, c.width), pooled.reshape(*lead, c.width))


def pooled_position(
    ids: Int[Array, "batch t"], mask: Bool[Array, "batch t"], eos_token: int | None
) -> Int[Array, " batch"]:
    """Position of each row's pooled state; see TextConfig.eos_token."""
    if eos_token is None:
        return jnp.maximum(mask.sum(-1) - 1, 0)
    return jnp.argmax(ids if eos_token == 2 else ids == eos_token, axis=-1)
