"""Networks that read CLIP's features: the Combiner of CLIP4Cir, and the pseudo-word of SEARLE and LinCIR."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from contextjax.models.layers import ACTIVATIONS, logical, normalize
from contextjax.models.linear import Dense

DROPOUT = 0.5  # as published; where `apply` is given a "dropout" key


class Combiner(nn.Module):
    """The Combiner of CLIP4Cir (Baldrati et al. 2023, arXiv 2308.11485), for features of width d.

    Text and image feature are projected to 4 d each and concatenated. Two networks of these give a vector v and a
    number s between 0 and 1. The query is v + s * text + (1 - s) * image.
    """

    @nn.compact
    def __call__(self, image: Float[Array, "*b d"], text: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Returns queries, not normalised, of CLIP's features as they are: not normalised."""
        width = text.shape[-1]
        pair = (_hidden(self, "text_layer", 4 * width, text), _hidden(self, "image_layer", 4 * width, image))
        read = jnp.concatenate(pair, axis=-1)
        vector = _linear("output", width, ("mlp", "embed"), 8 * width)(_hidden(self, "vector_layer", 8 * width, read))
        share = _linear("share", 1, ("mlp", None), 8 * width)(_hidden(self, "share_layer", 8 * width, read))
        share = jax.nn.sigmoid(share)
        return vector + share * text + (1 - share) * image


class PseudoWord(nn.Module):
    """The network that maps a feature to a word's embedding (SEARLE, arXiv 2303.15247; LinCIR, arXiv 2312.01998).

    Three Linear layers with GELU between them; the hidden ones are four times as wide as the feature.
    """

    width: int  # of the text tower's tokens

    @nn.compact
    def __call__(self, feature: Float[Array, "*b d"]) -> Float[Array, "*b width"]:
        """Returns a pseudo-word's embedding for each feature, which is L2-normalised first."""
        hidden = 4 * feature.shape[-1]
        x = _hidden(self, "first_layer", hidden, normalize(feature), "gelu")
        x = _hidden(self, "second_layer", hidden, x, "gelu")
        return _linear("output", self.width, ("mlp", "embed"), hidden)(x)


def _hidden(module: nn.Module, name: str, features: int, x: Array, activation: str = "relu") -> Array:
    """Returns Dropout(activation(Linear(x))), a part of a compact method."""
    x = ACTIVATIONS[activation](_linear(name, features, ("embed", "mlp"), x.shape[-1])(x))
    return nn.Dropout(DROPOUT, deterministic=not module.has_rng("dropout"))(x)


def _linear(name: str, features: int, axes: tuple[str, str | None], fan_in: int) -> Dense:
    """Returns a Linear in float32 that begins as PyTorch's: weights and biases uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    options: Any = {"kernel_init": logical(init, *axes), "bias_init": logical(init, axes[1])}
    return Dense(features, dtype=jnp.float32, name=name, **options)
