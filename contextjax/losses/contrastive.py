"""InfoNCE over a batch with pure negatives, masked, as (sum, count): one signature, three forms of computation.

The three forms give the same numbers. On D devices with n rows and m negatives each, a device needs, for N = D n and
M = D m:

  form        memory                       numbers sent, with the backward pass
  gathered    N (N + M) / D + (N + M) d    left to the compiler
  chunked     (N + M) d + chunk^2          2 (D - 1) (n + m) d
  ring        (n + m) d + chunk^2          3 (D - 1) (n + m) d
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.losses.logsumexp import LOWEST, Axis, Marks, cosines, gathered_logsumexps, ring_logsumexps


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
    one_direction: bool = False,
    form: Literal["gathered", "chunked", "ring"] = "gathered",
    chunk: int = 0,
    axis_name: Axis = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the symmetric InfoNCE loss with pure negatives (ConText-CIR, arXiv 2505.20764).

    Row i is the mean of two cross-entropies whose positive is (query_i, target_i): query_i against [all targets; all
    negatives], and target_i against all queries. Logits are cosines over the temperature.

    Example:
      >>> query = target = jnp.eye(3)
      >>> ids = jnp.arange(3)
      >>> total, count = contrastive_loss(query, target, temperature=0.1, valid=ids >= 0, target_ids=ids)
      >>> bool(total / count < 1e-3)
      True

    Args:
      query: L2-normalised embeddings.
      target: L2-normalised embeddings of the positives.
      temperature: divisor of the cosines.
      valid: False for padding rows, which are neither queries nor candidates.
      target_ids: picture ids of the targets.
      negatives: L2-normalised embeddings of candidates that are nobody's positive.
      negative_ids: their picture ids; None: they are never masked.
      mask_false_negatives: leave out candidates that are the same picture (by id) as the row's positive.
      one_direction: row i is the first of the two alone: query_i against the targets (CLIP4Cir, arXiv 2308.11485).
      form: "gathered" computes the whole matrix of logits. "chunked" and "ring" never hold it, and are bodies that
        each device runs on its own rows (`sharding.map_over_devices`): "chunked" gathers all candidates on every
        device, "ring" rotates them (`losses.logsumexp`).
      chunk: side of the blocks of "chunked" and "ring"; 0: one block.
      axis_name: mapped axes of the other devices, for "chunked" and "ring"; None: all rows are here.

    Returns:
      (sum over valid rows, number of valid rows), over all devices.
    """
    if form == "gathered":
        return contrastive_loss_of(
            cosines(query, target) / temperature, valid=valid, target_ids=target_ids,
            negatives=None if negatives is None else cosines(query, negatives) / temperature,
            negative_ids=negative_ids, mask_false_negatives=mask_false_negatives, one_direction=one_direction,
        )  # fmt: skip
    rows, keys, columns = sides(target, valid, target_ids, negatives, negative_ids, mask_false_negatives)
    logsumexps = ring_logsumexps if form == "ring" else gathered_logsumexps
    to_target, to_query = logsumexps(
        query, keys, jnp.asarray(temperature), rows, columns, chunk=chunk, axis_name=axis_name
    )
    positive = (query * target).sum(-1) / temperature
    both = to_target if one_direction else (to_target + to_query[: len(query)]) / 2
    total = jnp.where(valid, both - positive, 0.0).sum()
    loss = total, valid.sum().astype(jnp.float32)
    return loss if axis_name is None else jax.lax.psum(loss, axis_name)


def contrastive_loss_of(
    logits: Float[Array, "n n"],
    *,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    negatives: Float[Array, "n m"] | None = None,
    negative_ids: Int[Array, " m"] | None = None,
    mask_false_negatives: bool = False,
    one_direction: bool = False,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes `contrastive_loss` from logits instead of embeddings.

    Example:
      >>> ids = jnp.arange(2)
      >>> total, count = contrastive_loss_of(jnp.eye(2) * 9, valid=ids >= 0, target_ids=ids)
      >>> bool(total / count < 1e-3)
      True

    Args:
      logits: of query i and target j.
      valid: False for padding rows.
      target_ids: picture ids of the targets.
      negatives: logits of query i and pure negative j.
      negative_ids: picture ids of the pure negatives; None: they are never masked.
      mask_false_negatives: leave out candidates that are the same picture (by id) as the row's positive.
      one_direction: see `contrastive_loss`.

    Returns:
      (sum over valid rows, number of valid rows).
    """
    same = target_ids[:, None] == target_ids[None, :]
    diagonal = jnp.eye(len(logits), dtype=bool)
    allowed = (valid[:, None] & valid[None, :]) | diagonal
    if mask_false_negatives:
        allowed = allowed & (~same | diagonal)
    logits = jnp.where(allowed, logits, LOWEST)
    # Not jnp.diagonal: its gradient gathers inside a conditional, in which XLA's CPU processes wait for each other.
    positive = jnp.sum(logits, axis=1, where=diagonal)
    to_query = jax.nn.logsumexp(logits, axis=0) - positive
    if negatives is not None:
        if mask_false_negatives and negative_ids is not None:
            negatives = jnp.where(target_ids[:, None] == negative_ids[None, :], LOWEST, negatives)
        logits = jnp.concatenate([logits, negatives], axis=1)
    to_target = jax.nn.logsumexp(logits, axis=1) - positive
    both = to_target if one_direction else (to_target + to_query) / 2
    return jnp.where(valid, both, 0.0).sum(), valid.sum().astype(jnp.float32)


def recall_at_one(
    query: Float[Array, "n d"], target: Float[Array, "n d"], valid: Bool[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Counts queries whose own target is their nearest in the batch.

    Example:
      >>> recall_at_one(jnp.eye(3), jnp.eye(3), jnp.array([True, True, False]))
      (Array(2., dtype=float32), Array(2., dtype=float32))

    Returns:
      (number of valid rows with a hit, number of valid rows).
    """
    scores = jnp.where(valid[None, :], query @ target.T, -2.0)
    hit = scores.argmax(axis=1) == jnp.arange(len(query))
    return jnp.where(valid, hit, False).sum().astype(jnp.float32), valid.sum().astype(jnp.float32)


def sides(
    target: Any, valid: Any, target_ids: Any, negatives: Any, negative_ids: Any, mask_false_negatives: bool
) -> tuple[Marks, Any, Marks]:
    """Returns the marks of the queries; targets and negatives joined into keys, and the marks of the keys.

    Example:
      >>> target, ids, negatives = jnp.eye(3), jnp.arange(3), jnp.ones((2, 3))
      >>> queries, keys, marks = sides(target, ids >= 0, ids, negatives, None, True)
      >>> keys.shape, marks.place.tolist()  # place 0: the own target of no query
      ((5, 3), [1, 2, 3, 0, 0])
    """
    count = len(target)
    own = Marks(valid, target_ids, jnp.full(count, mask_false_negatives), jnp.arange(1, count + 1))
    if negatives is None:
        return own, target, own
    extra, known = len(negatives), negative_ids is not None
    ids = negative_ids if known else jnp.zeros(extra, target_ids.dtype)
    pure = Marks(jnp.ones(extra, bool), ids, jnp.full(extra, known), jnp.zeros(extra, own.place.dtype))
    join = lambda *arrays: jnp.concatenate(arrays)
    return own, join(target, negatives), jax.tree.map(join, own, pure)
