"""Concept consistency: a phrase should look at the same patches in its sentence and alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def phrase_attention(attention: Float[Array, "p i t"], span: Int[Array, "p 2"]) -> Float[Array, "p patches"]:
    """Mean attention of each patch to the tokens [start, end) of a phrase; the CLS row is left out.

    `attention` is a softmax over text tokens for each of the I image tokens (CLS first).
    """
    positions = jnp.arange(attention.shape[-1])
    inside = (positions >= span[:, :1]) & (positions < span[:, 1:])
    length = jnp.maximum(inside.sum(-1), 1)
    return jnp.einsum("pit,pt->pi", attention[:, 1:], inside.astype(attention.dtype)) / length[:, None]


def consistency_loss(
    in_context: Float[Array, "p patches"],
    alone: Float[Array, "p patches"],
    valid: Bool[Array, " p"],
    *,
    epsilon: float = 0.0,
    normalize: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """mean over patches of relu(|in context - alone| - epsilon), for each phrase (arXiv 2505.20764).

    The caller stops the gradient of `alone`. With `normalize` each map is first divided by its sum over the
    patches, which removes the artefact that a phrase alone shares its softmax with fewer tokens.

    Returns:
      (sum over valid phrases, number of valid phrases).
    """
    if normalize:
        in_context, alone = (x / jnp.maximum(x.sum(-1, keepdims=True), 1e-6) for x in (in_context, alone))
    distance = jax.nn.relu(jnp.abs(in_context - alone) - epsilon).mean(-1)
    return jnp.where(valid, distance, 0.0).sum(), valid.sum().astype(jnp.float32)
