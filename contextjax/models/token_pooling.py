"""What a text reads of a picture's tokens, and how alike the two are (X-Pool, Gorti et al. 2022, arXiv 2203.15086).

Late interaction: pictures and texts are encoded apart, so K candidates cost K images and one text; what a text asks
about (where something is, say) need not be squeezed into one vector that knows nothing of the question.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from contextjax.models.layers import dense, head, normalize


class TokenPooling(nn.Module):
    """Attention pooling of image tokens by a text, with `heads` heads, and the cosine of what it gives and the text."""

    width: int
    heads: int
    dtype: Any = None

    def setup(self):
        axes = "embed", "projection"
        self.query, self.key = (dense(self.width, axes, dtype=self.dtype) for _ in range(2))
        self.what, self.value = head(self.width, axes), head(self.width, axes)  # what is compared

    def read_image(self, tokens: Float[Array, "*b n w"]) -> Float[Array, "*b n 2 d"]:
        """Key and value of each token, float32."""
        return jnp.stack([self.key(tokens).astype(jnp.float32), self.value(tokens)], axis=-2)

    def read_text(self, pooled: Float[Array, "*b w"]) -> Float[Array, "*b 2 d"]:
        """The query, and what is compared with the answer; float32."""
        return jnp.stack([self.query(pooled).astype(jnp.float32), self.what(pooled)], axis=-2)

    def cosine(self, image: Float[Array, "*#s k n 2 d"], text: Float[Array, "s j 2 d"]) -> Float[Array, "s j k"]:
        """Of J sentences of each of S texts, and K pictures (its own, or the same for all); in float32."""
        split = lambda x: x.reshape(*x.shape[:-1], self.heads, -1)
        query, key, value = split(text[..., 0, :]), split(image[..., 0, :]), split(image[..., 1, :])
        depth = query.shape[-1]
        logits = jnp.einsum("...jhd,...knhd->...jkhn", query * depth**-0.5, key)
        weights = jax.nn.softmax(logits, axis=-1)
        answer = jnp.einsum("...jkhn,...knhd->...jkhd", weights, value)
        answer = normalize(answer.reshape(*answer.shape[:-2], -1))
        return jnp.einsum("...jkd,...jd->...jk", answer, normalize(text[..., 1, :]))
