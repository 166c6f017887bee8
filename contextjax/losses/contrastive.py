"""Contrastive losses over a batch: InfoNCE with pure negatives, masked, as (sum, count)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.losses.logsumexp import LOWEST, cosines


def contrastive_loss(
    query: Float[Array, "n d"],
    target: Float[Array, "n d"],
    *,
    temperature: Float[Array, ""] | float,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    negatives: Float[Array, "m d"] | None = None,
    negative_ids: Int[Array, " m"] | None = None,
    mask_false_negatives: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Symmetric InfoNCE with pure negatives (arXiv 2505.20764).

    Row i: query_i against [all targets; all negatives] with target_i as the positive, and target_i against
    all queries; the mean of both. Embeddings are L2-normalised, logits are cosines over `temperature`.
    `mask_false_negatives` leaves out candidates that are the very picture (by id) of the row's positive.

    Returns:
      (sum over valid rows, number of valid rows).
    """
    return contrastive_loss_of(
        cosines(query, target) / temperature, valid=valid, target_ids=target_ids,
        negatives=None if negatives is None else cosines(query, negatives) / temperature, negative_ids=negative_ids,
        mask_false_negatives=mask_false_negatives,
    )  # fmt: skip


def contrastive_loss_of(
    logits: Float[Array, "n n"],
    *,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    negatives: Float[Array, "n m"] | None = None,
    negative_ids: Int[Array, " m"] | None = None,
    mask_false_negatives: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """contrastive_loss of scores: `logits` of query i and target j, `negatives` of query i and pure negative j."""
    same = target_ids[:, None] == target_ids[None, :]
    diagonal = jnp.eye(len(logits), dtype=bool)
    allowed = (valid[:, None] & valid[None, :]) | diagonal
    if mask_false_negatives:
        allowed = allowed & (~same | diagonal)
    logits = jnp.where(allowed, logits, LOWEST)
    positive = jnp.diagonal(logits)
    to_query = jax.nn.logsumexp(logits, axis=0) - positive
    if negatives is not None:
        if mask_false_negatives and negative_ids is not None:
            negatives = jnp.where(target_ids[:, None] == negative_ids[None, :], LOWEST, negatives)
        logits = jnp.concatenate([logits, negatives], axis=1)
    to_target = jax.nn.logsumexp(logits, axis=1) - positive
    return jnp.where(valid, (to_target + to_query) / 2, 0.0).sum(), valid.sum().astype(jnp.float32)


def recall_at_one(
    query: Float[Array, "n d"], target: Float[Array, "n d"], valid: Bool[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How often a query's own target is its nearest in the batch, as (sum, count)."""
    scores = jnp.where(valid[None, :], query @ target.T, -2.0)
    hit = scores.argmax(axis=1) == jnp.arange(len(query))
    return jnp.where(valid, hit, False).sum().astype(jnp.float32), valid.sum().astype(jnp.float32)
