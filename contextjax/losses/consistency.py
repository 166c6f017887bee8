"""Concept consistency: a noun phrase should attend to the same patches in its sentence and alone (ConText-CIR)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def phrase_attention(
    attention: Float[Array, "p i t"], span: Int[Array, "p 2"], *, class_tokens: int = 1
) -> Float[Array, "p patches"]:
    """Averages the attention of each patch over the tokens of a phrase.

    Example:
      >>> attention = jnp.full((1, 5, 4), 0.25)  # CLS and four patches over four tokens
      >>> phrase_attention(attention, jnp.array([[1, 3]])).tolist()
      [[0.25, 0.25, 0.25, 0.25]]

    Args:
      attention: softmax over the text's tokens for each of the I image tokens; the row of CLS, the first, is left out.
      span: the first and the last + 1 token of the phrase.
      class_tokens: 1 where there is a CLS, 0 where all image tokens are patches.
    """
    positions = jnp.arange(attention.shape[-1])
    inside = (positions >= span[:, :1]) & (positions < span[:, 1:])
    length = jnp.maximum(inside.sum(-1), 1)
    return jnp.einsum("pit,pt->pi", attention[:, class_tokens:], inside.astype(attention.dtype)) / length[:, None]


def consistency_loss(
    in_context: Float[Array, "p patches"],
    alone: Float[Array, "p patches"],
    valid: Bool[Array, " p"],
    *,
    epsilon: float = 0.0,
    normalize: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes mean over patches of relu(|in context - alone| - epsilon) for each phrase (arXiv 2505.20764).

    Example:
      >>> maps = jnp.array([[0.2, 0.8]]), jnp.array([[0.4, 0.6]])
      >>> total, count = consistency_loss(*maps, jnp.array([True]), epsilon=0.1)
      >>> round(float(total / count), 3)
      0.1

    Args:
      in_context: attention map of each phrase in its sentence, see `phrase_attention`.
      alone: map of the phrase as a text by itself; the caller stops its gradient.
      valid: False for padding.
      epsilon: differences up to this cost nothing.
      normalize: divide each map by its sum over the patches first. A phrase alone shares its softmax with fewer tokens,
        which makes its map larger; this removes the difference.

    Returns:
      (sum over valid phrases, number of valid phrases).
    """
    if normalize:
        in_context, alone = (x / jnp.maximum(x.sum(-1, keepdims=True), 1e-6) for x in (in_context, alone))
    distance = jax.nn.relu(jnp.abs(in_context - alone) - epsilon).mean(-1)
    return jnp.where(valid, distance, 0.0).sum(), valid.sum().astype(jnp.float32)
