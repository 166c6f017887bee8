"""The contrastive loss without its matrix of logits: in chunks, with candidates gathered or going around a ring.

Both are bodies that each device runs on its own rows: `axis_name` names the axes that the others are on.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.losses.logsumexp import Axis, Marks, logsumexps


def chunked_contrastive_loss(
    query: Float[Array, "n d"],
    target: Float[Array, "n d"],
    *,
    temperature: Float[Array, ""] | float,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    negatives: Float[Array, "m d"] | None = None,
    negative_ids: Int[Array, " m"] | None = None,
    mask_false_negatives: bool = False,
    chunk: int = 0,
    axis_name: Axis = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """contrastive_loss in blocks of `chunk` queries by `chunk` candidates (0: all at once).

    Every device gathers all targets and negatives for its own queries: with N targets and M negatives in all it holds
    O((N + M) d + chunk^2), and sends 2 (devices - 1) (n + m) d numbers with the backward pass.

    Returns:
      (sum over valid rows, number of valid rows), of all devices.
    """
    rows, candidates, columns = _sides(target, valid, target_ids, negatives, negative_ids, mask_false_negatives)
    begin, gather, over_devices = 0, lambda x: x, lambda x: x
    if axis_name is not None:
        device, gather = jax.lax.axis_index(axis_name), lambda x: jax.lax.all_gather(x, axis_name, tiled=True)
        begin, over_devices = device * len(candidates), lambda x: _logsumexp_over(x, axis_name)
        move = lambda marks: marks._replace(place=jnp.where(marks.place > 0, marks.place + begin, 0))
        rows, columns = move(rows), move(columns)
    to_target, partial = logsumexps(
        query, gather(candidates), jnp.asarray(temperature), rows, jax.tree.map(gather, columns), chunk=chunk
    )
    to_query = jax.lax.dynamic_slice_in_dim(over_devices(partial), begin, len(query))
    return _total(query, target, temperature, valid, to_target, to_query, axis_name)


def ring_contrastive_loss(
    query: Float[Array, "n d"],
    target: Float[Array, "n d"],
    *,
    temperature: Float[Array, ""] | float,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    negatives: Float[Array, "m d"] | None = None,
    negative_ids: Int[Array, " m"] | None = None,
    mask_false_negatives: bool = False,
    chunk: int = 0,
    axis_name: Axis,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """contrastive_loss of queries that stay and targets and negatives that go around, a device's at a time.

    A device holds O((n + m) d + chunk^2), however many there are, and sends 3 (devices - 1) (n + m) d numbers with the
    backward pass, in which candidates go around once more, with their gradients. chunk = 0: blocks of n by n + m.

    Returns:
      (sum over valid rows, number of valid rows), of all devices.
    """
    rows, candidates, columns = _sides(target, valid, target_ids, negatives, negative_ids, mask_false_negatives)
    to_target, to_query = logsumexps(
        query, candidates, jnp.asarray(temperature), rows, columns, chunk=chunk, axis_name=axis_name
    )
    return _total(query, target, temperature, valid, to_target, to_query[: len(query)], axis_name)


def _sides(
    target: Any, valid: Any, target_ids: Any, negatives: Any, negative_ids: Any, mask_false_negatives: bool
) -> tuple[Marks, Any, Marks]:
    """Marks of the queries; targets and negatives as one, with their marks."""
    count = len(target)
    own = Marks(valid, target_ids, jnp.full(count, mask_false_negatives), jnp.arange(1, count + 1))
    if negatives is None:
        return own, target, own
    extra, known = len(negatives), negative_ids is not None
    ids = negative_ids if known else jnp.zeros(extra, target_ids.dtype)
    pure = Marks(jnp.ones(extra, bool), ids, jnp.full(extra, known), jnp.zeros(extra, own.place.dtype))
    join = lambda *parts: jnp.concatenate(parts)
    return own, join(target, negatives), jax.tree.map(join, own, pure)


def _logsumexp_over(x: Any, axis_name: Axis) -> Any:
    """Of each element, over devices."""
    largest = jax.lax.pmax(jax.lax.stop_gradient(x), axis_name)
    return jnp.log(jax.lax.psum(jnp.exp(x - largest), axis_name)) + largest


def _total(query: Any, target: Any, temperature: Any, valid: Any, to_target: Any, to_query: Any, axis_name: Axis):
    """(sum, count) over valid rows, from the logsumexps of each row over candidates and over queries."""
    positive = (query * target).sum(-1) / temperature
    total = jnp.where(valid, (to_target + to_query) / 2 - positive, 0.0).sum()
    found = total, valid.sum().astype(jnp.float32)
    return found if axis_name is None else jax.lax.psum(found, axis_name)
