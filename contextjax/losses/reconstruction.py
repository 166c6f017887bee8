"""Losses of text-guided masking: the pixels of masked patches, or which patches a text attends to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def reconstruction_loss(
    pixels: Float[Array, "b masked pixels"], truth: Float[Array, "b masked pixels"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Squared error over batch, masked patches and pixels (ContextBLIP, stage 1), as (sum, count)."""
    error = (pixels.astype(jnp.float32) - truth) ** 2
    return error.sum(), jnp.float32(error.size)


def attended_loss(
    logits: Float[Array, "b patches"], attended: Bool[Array, "b patches"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over patches of (attended - sigmoid(logit))^2 (the card's masking loss), as (sum, number of pictures)."""
    error = (attended.astype(jnp.float32) - jax.nn.sigmoid(logits.astype(jnp.float32))) ** 2
    return error.sum(), jnp.float32(len(logits))
