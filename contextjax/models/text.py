"""CLIP's causal text tower, and SigLIP's, in which every token reads every other."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.layers import TransformerBlock, embed_tokens, layer_norm, logical, run_blocks
from contextjax.models.linear import spread
from contextjax.types import SLOT


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes and options of a text tower; the defaults are CLIP's."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    # The id of the last token of a text, for config.json alone (2, as in files of 2021 to 2023, is the largest id). The
    # pooled state is always that of the last real token, which the mask shows.
    eos_token: int | None = None
    # The id of padding, of SigLIP's tower alone: its texts have no first token, are always filled up to `positions`, no
    # token is masked, and the state at the last position is pooled.
    pad_token: int | None = None
    scan: bool = False  # see layers.run_blocks
    remat: str = "none"
    attention: str = "xla"


class TextOutput(NamedTuple):
    """The states of a text tower."""

    states: Any  # [..., T, width], after the final LayerNorm
    pooled: Any  # [..., width], the state of one token that stands for the text
    attention: Any = None  # [..., T, I], of a text that reads image tokens: mean over blocks and heads
    last_attention: Any = None  # [..., T, I], of the last block: mean over heads


class TextTransformer(nn.Module):
    """Transformer over a text that ends with EOS: causal (CLIP, Radford et al. 2021), or with `pad_token` SigLIP's."""

    config: TextConfig
    dtype: Any = None

    @nn.compact
    def __call__(
        self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], word: Float[Array, "*b width"] | None = None
    ) -> TextOutput:
        """Returns the states of texts; `word` is the embedding of the tokens whose id is types.SLOT."""
        c = self.config
        lead, length = ids.shape[:-1], ids.shape[-1]
        ids, mask = ids.reshape(-1, length), mask.reshape(-1, length)
        if c.pad_token is not None:  # the same states, however long the array is that the text comes in
            rest = jnp.full((ids.shape[0], c.positions), c.pad_token, ids.dtype)
            ids = jnp.concatenate([jnp.where(mask, ids, c.pad_token), rest], axis=1)[:, : c.positions]
        embedding = nn.Embed(
            c.vocabulary,
            c.width,
            embedding_init=logical(nn.initializers.normal(0.02), "vocab", "embed"),
            name="token_embedding",
        )
        normal = logical(nn.initializers.normal(0.01), None, "embed")
        positions = self.param("position_embedding", normal, (c.positions, c.width))
        x = embed_tokens(embedding, ids if word is None else jnp.maximum(ids, 0), self.dtype)
        if word is not None:
            x = jnp.where(ids[..., None] == SLOT, word.reshape(-1, 1, c.width).astype(x.dtype), x)
        x = x + spread(positions[: ids.shape[1]], x)
        final_norm = layer_norm(c.epsilon, name="final_norm", dtype=self.dtype)
        if c.pad_token is not None:
            states = final_norm(run_blocks(TransformerBlock, c, self.dtype, x)[0])
            states, pooled = states[:, :length], states[:, -1]
        else:
            seen = jnp.tril(jnp.ones((length, length), bool)) & mask[:, None, None, :]
            states = final_norm(run_blocks(TransformerBlock, c, self.dtype, x, seen)[0])
            pooled = jnp.take_along_axis(states, pooled_position(mask)[:, None, None], axis=1)[:, 0]
        return TextOutput(states.reshape(*lead, length, c.width), pooled.reshape(*lead, c.width))


def pooled_position(mask: Bool[Array, "batch t"]) -> Int[Array, " batch"]:
    """Returns the position of the token whose state is pooled: the last real one, which is the tokenizer's EOS.

    No id is looked for: published configs name a wrong one, or leave it out, and tokens that were added behind EOS have
    larger ones.
    """
    return jnp.maximum(mask.sum(-1) - 1, 0)
