"""Late interaction: a text pools a picture's tokens by attention (X-Pool, Gorti et al. 2022, arXiv 2203.15086).

Pictures and texts are encoded apart, so that K candidates cost K images and one text. Unlike with one vector a picture,
what the text asks about (where something is, say) need not be in a vector that was computed without the question.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from contextjax.models.layers import dense, head, normalize


class TokenPooling(nn.Module):
    """Attention pooling of image tokens by a text, and the cosine of the result and the text."""

    width: int
    heads: int
    dtype: Any = None

    def setup(self):
        axes = "embed", "projection"
        self.query, self.key = (dense(self.width, axes, dtype=self.dtype) for _ in range(2))
        self.what, self.value = head(self.width, axes), head(self.width, axes)  # compared, so in float32

    def read_image(self, tokens: Float[Array, "*b n w"]) -> Float[Array, "*b n 2 d"]:
        """Returns key and value of each image token, float32."""
        return jnp.stack([self.key(tokens).astype(jnp.float32), self.value(tokens)], axis=-2)

    def read_text(self, pooled: Float[Array, "*b w"]) -> Float[Array, "*b 2 d"]:
        """Returns the query of each text, and the vector that the pooled values are compared with, float32."""
        return jnp.stack([self.query(pooled).astype(jnp.float32), self.what(pooled)], axis=-2)

    def cosine(self, image: Float[Array, "*#s k n 2 d"], text: Float[Array, "s j 2 d"]) -> Float[Array, "s j k"]:
        """Returns the cosines of J sentences of each of S texts with K pictures: its own, or the same for all texts."""
        split = lambda x: x.reshape(*x.shape[:-1], self.heads, -1)
        query, key, value = split(text[..., 0, :]), split(image[..., 0, :]), split(image[..., 1, :])
        depth = query.shape[-1]
        logits = jnp.einsum("...jhd,...knhd->...jkhn", query * depth**-0.5, key)
        weights = jax.nn.softmax(logits, axis=-1)
        answer = jnp.einsum("...jkhn,...knhd->...jkhd", weights, value)
        answer = normalize(answer.reshape(*answer.shape[:-2], -1))
        return jnp.einsum("...jkd,...jd->...jk", answer, normalize(text[..., 1, :]))
