"""Losses of text-guided masking (ContextBLIP): the pixels of masked patches, or which patches a text attends to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def reconstruction_loss(
    pixels: Float[Array, "b masked pixels"], truth: Float[Array, "b masked pixels"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the squared error of reconstructed pixels (ContextBLIP, arXiv 2405.19226, stage 1).

    Example:
      >>> total, count = reconstruction_loss(jnp.zeros((1, 2, 12)), jnp.ones((1, 2, 12)))
      >>> float(total / count)
      1.0

    Args:
      pixels: predicted pixels of each masked patch, in normalised units.
      truth: the pixels.

    Returns:
      (sum over pictures, masked patches and pixels, their number).
    """
    error = (pixels.astype(jnp.float32) - truth) ** 2
    return error.sum(), jnp.float32(error.size)


def attended_loss(
    logits: Float[Array, "b patches"], attended: Bool[Array, "b patches"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the sum over patches of (attended - sigmoid(logit))^2, the masking loss of the summary form.

    Example:
      >>> total, count = attended_loss(jnp.zeros((1, 4)), jnp.ones((1, 4), bool))
      >>> float(total / count)
      1.0

    Args:
      logits: of each patch being among those that the text attends to most.
      attended: True where it is; `models.adapter` says what the summary form is.

    Returns:
      (sum over pictures, number of pictures).
    """
    error = (attended.astype(jnp.float32) - jax.nn.sigmoid(logits.astype(jnp.float32))) ** 2
    return error.sum(), jnp.float32(len(logits))
