"""SigLIP's loss: each pair of a query and a candidate is a match or none, by itself; masked, as (sum, count).

It has the three forms of computation of `losses.contrastive`, with the same numbers sent. A sum of pairs needs no
normaliser, so that nothing but the sum and the candidates moves between devices. The ring's backward pass keeps no
candidates of other devices: they rotate once more, and their gradients with them (`losses.logsumexp`).
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.losses.contrastive import sides
from contextjax.losses.logsumexp import Axis, Marks, cosines, cut, over_ring, rotate, scan_blocks, without_places


def sigmoid_loss(
    query: Float[Array, "n d"],
    target: Float[Array, "n d"],
    *,
    temperature: Float[Array, ""] | float,
    bias: Float[Array, ""] | float,
    valid: Bool[Array, " n"],
    target_ids: Int[Array, " n"],
    negatives: Float[Array, "m d"] | None = None,
    negative_ids: Int[Array, " m"] | None = None,
    mask_false_negatives: bool = False,
    form: Literal["gathered", "chunked", "ring"] = "gathered",
    chunk: int = 0,
    axis_name: Axis = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the sigmoid loss with pure negatives (SigLIP, Zhai et al. 2023, arXiv 2303.15343, section 3.2).

    Row i is the sum of -log sigmoid(z (cosine / temperature + bias)) of query_i and each candidate, where z is 1 for
    target_i and -1 for all others.

    Example:
      >>> query = target = jnp.eye(3)
      >>> ids = jnp.arange(3)
      >>> total, count = sigmoid_loss(query, target, temperature=0.05, bias=-10.0, valid=ids >= 0, target_ids=ids)
      >>> bool(total / count < 1e-3)
      True

    Args:
      query: L2-normalised embeddings.
      target: L2-normalised embeddings of the positives.
      temperature: divisor of the cosines.
      bias: what is added to each logit.
      valid: False for padding rows, which are neither queries nor candidates.
      target_ids: picture ids of the targets.
      negatives: L2-normalised embeddings of candidates that are nobody's positive.
      negative_ids: their picture ids; None: they are never masked.
      mask_false_negatives: leave out candidates that are the same picture (by id) as the row's positive.
      form: see `contrastive_loss`.
      chunk: side of the blocks of "chunked" and "ring"; 0: one block.
      axis_name: mapped axes of the other devices, for "chunked" and "ring"; None: all rows are here.

    Returns:
      (sum over valid rows, number of valid rows), over all devices.
    """
    rows, keys, columns = sides(target, valid, target_ids, negatives, negative_ids, mask_false_negatives)
    scale = jnp.asarray(temperature), jnp.asarray(bias)
    if form == "ring":
        total: Any = _ring_total(chunk, axis_name, query, keys, scale, rows, columns)
    elif form == "chunked" and axis_name is not None:
        gather = lambda x: jax.lax.all_gather(x, axis_name, tiled=True)
        begin = jax.lax.axis_index(axis_name) * len(keys)
        move = lambda marks: marks._replace(place=jnp.where(marks.place > 0, marks.place + begin, 0))
        total = _total(chunk, query, gather(keys), scale, move(rows), jax.tree.map(gather, move(columns)))
    else:
        total = _total(chunk, query, keys, scale, rows, columns)
    loss = total, valid.sum().astype(jnp.float32)
    return loss if axis_name is None else jax.lax.psum(loss, axis_name)


def _total(chunk: int, query: Any, keys: Any, scale: tuple[Any, Any], rows: Marks, columns: Marks) -> Any:
    """Returns the sum over the pairs of a block, computed in smaller ones and once more for the gradient."""
    query_block, key_block = cut((query, rows), chunk), cut((keys, columns), chunk)
    one: Any = jax.checkpoint(_sum_of_pairs) if chunk else _sum_of_pairs

    def over_keys(total: Any, key: Any) -> tuple[Any, None]:
        add = lambda total, block: (total + one(*block, *key, scale), None)
        return scan_blocks(add, total, query_block)[0], None

    start = jnp.zeros((), jnp.result_type(query, keys, *scale))
    return scan_blocks(over_keys, start, key_block)[0]


def _sum_of_pairs(query: Any, rows: Marks, keys: Any, columns: Marks, scale: tuple[Any, Any]) -> Any:
    temperature, bias = scale
    across = lambda test, name: test(getattr(rows, name)[:, None], getattr(columns, name)[None, :])
    positive = across(jnp.equal, "place") & (rows.place > 0)[:, None]
    same = across(jnp.equal, "ids") & across(jnp.logical_and, "distinct")
    paired = across(jnp.logical_and, "valid") & (positive | ~same)
    logits = cosines(query, keys) / temperature + bias
    return jnp.sum(jax.nn.softplus(jnp.where(positive, -logits, logits)), where=paired)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring_total(chunk: int, axis_name: Axis, query, keys, scale, rows: Marks, columns: Marks):
    """Returns the sum over this device's queries and all devices' keys."""
    own = _total(chunk, query, keys, scale, rows, columns)
    if axis_name is None:
        return own

    def step(carry):
        key_block, total = carry
        key_block = rotate(key_block, axis_name)
        return key_block, total + _total(chunk, query, *_elsewhere(key_block, scale, rows))

    return over_ring(step, ((keys, columns), own), axis_name)[1]


def _forward(chunk, axis_name, query, keys, scale, rows, columns):
    return _ring_total(chunk, axis_name, query, keys, scale, rows, columns), (query, keys, scale, rows, columns)


def _backward(chunk, axis_name, saved, cotangent):
    query, keys, scale, rows, columns = saved

    def gradients(keys, scale, rows, columns):
        total = lambda query, keys, scale: _total(chunk, query, keys, scale, rows, columns)
        return jax.vjp(total, query, keys, scale)[1](cotangent)

    to_query, to_own, to_scale = gradients(keys, scale, rows, columns)
    if axis_name is None:
        return to_query, to_own, to_scale, None, None

    def step(carry):
        key_block, to_query, to_keys, to_scale = carry
        key_block = rotate(key_block, axis_name)
        block = gradients(*_elsewhere(key_block, scale, rows))
        to_keys = rotate(to_keys + block[1], axis_name)
        return key_block, to_query + block[0], to_keys, jax.tree.map(jnp.add, to_scale, block[2])

    start = ((keys, columns), to_query, jnp.zeros_like(to_own), to_scale)
    _, to_query, to_keys, to_scale = over_ring(step, start, axis_name)
    return to_query, to_own + to_keys, to_scale, None, None


def _elsewhere(key_block: tuple[Any, Marks], scale: Any, rows: Marks) -> tuple[Any, Any, Marks, Marks]:
    """Returns the last arguments of `_total` for the keys of another device."""
    keys, columns = without_places(*key_block)
    return keys, scale, rows, columns


_ring_total.defvjp(_forward, _backward)
