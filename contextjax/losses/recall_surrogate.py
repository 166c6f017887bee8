"""The Recall@K surrogate: recall over a batch with sigmoids in place of its steps (Patel et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.losses.logsumexp import cosines


def recall_surrogate_loss(
    query: Float[Array, "n d"],
    target: Float[Array, "n d"],
    *,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    mask_false_negatives: bool = False,
    cutoffs: Sequence[int] = (1, 2, 4, 8, 16),
    rank_temperature: float = 0.01,
    recall_temperature: float = 1.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes one minus the mean over `cutoffs` of a smooth R@K of the batch.

    A query's smooth rank, from 0, is the sum of sigmoid((s_j - s_i) / rank_temperature) over the other targets j, with
    its own target's cosine s_i; its R@K is sigmoid((K - 1 - rank) / recall_temperature).

    Example:
      >>> ids = jnp.arange(3)
      >>> total, count = recall_surrogate_loss(jnp.eye(3), jnp.eye(3), valid=ids >= 0, target_ids=ids, cutoffs=(8,))
      >>> bool(total / count < 1e-3)
      True

    Args:
      query: L2-normalised embeddings.
      target: L2-normalised embeddings of the positives.
      valid: False for padding rows, which neither ask nor are candidates.
      target_ids: picture ids of the targets.
      mask_false_negatives: leave out candidates that are the same picture (by id) as the row's positive.
      cutoffs: the values of K.
      rank_temperature: of the step from "farther" to "nearer" than the positive.
      recall_temperature: of the step at rank K.

    Returns:
      (sum over valid rows, number of valid rows).
    """
    scores = cosines(query, target)
    diagonal = jnp.eye(len(scores), dtype=bool)
    own = jnp.sum(scores, axis=1, where=diagonal)  # not jnp.diagonal, see contrastive_loss_of
    others = valid[None, :] & ~diagonal
    if mask_false_negatives:
        others = others & (target_ids[:, None] != target_ids[None, :])
    nearer = jax.nn.sigmoid((scores - own[:, None]) / rank_temperature)
    rank = jnp.where(others, nearer, 0.0).sum(axis=1)
    recalls = jax.nn.sigmoid((jnp.asarray(cutoffs, jnp.float32) - 1 - rank[:, None]) / recall_temperature)
    return jnp.where(valid, 1 - recalls.mean(axis=1), 0.0).sum(), valid.sum().astype(jnp.float32)
