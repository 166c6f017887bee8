"""HN-NCE, InfoNCE whose harder negatives weigh more, in log space and in all forms of computation of InfoNCE.

For similarities S = query target^T / temperature, the weight of a negative j of row i among its n_i negatives is

  w_ij = n_i exp(beta S_ij) / sum_l exp(beta S_il)      and that of the positive is alpha, so that
  log sum_j w_ij exp(S_ij) = logaddexp(log alpha + S_ii, log n_i + lse_j((1 + beta) S_ij) - lse_l(beta S_il))

with sums over negatives alone. Each logsumexp (lse) is one of `losses.logsumexp`, at the temperature of its factor; no
exponential overflows, and "chunked" and "ring" never hold the matrix.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.losses.logsumexp import Axis, Marks, gathered_logsumexps, ring_logsumexps


def hard_negative_loss(
    query: Float[Array, "n d"],
    target: Float[Array, "n d"],
    *,
    temperature: Float[Array, ""] | float,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    alpha: float = 1.0,
    beta: float = 0.5,
    mask_false_negatives: bool = False,
    form: Literal["gathered", "chunked", "ring"] = "gathered",
    chunk: int = 0,
    axis_name: Axis = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes HN-NCE of both directions, added (Radenovic et al., arXiv 2301.02280, as CoVR-2 uses it).

    With alpha 1 and beta 0 it is twice InfoNCE: `contrastive_loss` is the mean of the directions.

    Example:
      >>> query = target = jnp.eye(3)
      >>> ids = jnp.arange(3)
      >>> total, count = hard_negative_loss(query, target, temperature=0.1, valid=ids >= 0, target_ids=ids)
      >>> bool(total / count < 1e-3)
      True

    Args:
      query: embeddings, of a norm of at most one.
      target: embeddings of the positives.
      temperature: divisor of the products.
      valid: False for padding rows, which neither ask nor are candidates.
      target_ids: picture ids of the targets.
      alpha: weight of the positive in the denominator.
      beta: how much more a harder negative weighs; 0: all weigh alike.
      mask_false_negatives: leave out candidates that are the same picture (by id) as the row's positive.
      form: see `contrastive_loss`.
      chunk: side of the blocks of "chunked" and "ring"; 0: one block.
      axis_name: mapped axes of the other devices, for "chunked" and "ring"; None: all rows are here.

    Returns:
      (sum over valid rows, number of valid rows), over all devices.
    """
    count = len(query)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    own = target_ids if mask_false_negatives else first + jnp.arange(count)  # equal ids are no pair: so is the diagonal
    marks = Marks(valid, own, jnp.ones(count, bool), jnp.zeros(count, jnp.int32))
    reduce = gathered_logsumexps if form == "chunked" else ring_logsumexps

    def over_negatives(query, target, temperature):
        sums = reduce(query, target, jnp.asarray(temperature), marks, marks, chunk=chunk, axis_name=axis_name)
        return jnp.stack(sums)  # [2, n]: of queries over targets, of targets over queries

    hard = over_negatives(query, target, temperature / (1 + beta))
    if beta:
        nothing = jnp.zeros((count, 1), query.dtype)  # whose logsumexp is the logarithm of the number of negatives
        hard = hard + over_negatives(nothing, nothing, 1.0) - over_negatives(query, target, temperature / beta)
    positive = (query * target).sum(-1) / temperature
    rows = jnp.logaddexp(math.log(alpha) + positive, hard).sum(0) - 2 * positive
    loss = jnp.where(valid, rows, 0.0).sum(), valid.sum().astype(jnp.float32)
    return loss if axis_name is None else jax.lax.psum(loss, axis_name)
