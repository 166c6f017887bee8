"""Logsumexps along both axes of a similarity matrix that is never held: computed in blocks, over a ring of devices.

A device holds a query block [n, d] and a key block [m, d] (keys: what queries are compared with, targets and pure
negatives). Query blocks stay; key blocks rotate. At step i = 0 ... D - 1 of a ring of D devices

    device p holds       queries Q_p  and  keys K_k  of device k = (p - i) mod D
    row logsumexps       r_p <- logaddexp(r_p, logsumexp over keys of     S),   S = Q_p K_k^T / temperature [n, m]
    column logsumexps    c_k <- logaddexp(c_k, logsumexp over queries of  S)

r_p stays with its queries and c_k rotates with its keys. Step 0 needs no communication; its c_p stays on its device,
and a second accumulator that starts empty rotates. An accumulator is sent on after each of the D - 1 other steps, so
that it arrives at its own device when the last step ends: D - 1 sends of keys, marks and accumulators in all.

The backward pass keeps nothing of the matrix. It computes every block again, from the embeddings and the logsumexps:
with cotangents a [n] of r and b [m] of c, the gradient of S is exp(S - r) a + exp(S - c) b. The keys rotate once more
and their gradients with them, in the same order. Within a device, S is cut into blocks of `chunk` by `chunk` in the
same way, by loops instead of sends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

Axis = str | tuple[str, ...] | None
LOWEST = -1e9  # logit of a pair that is left out; finite, so that a row without keys stays finite


class Marks(NamedTuple):
    """The marks by which pairs of a query (row) and a key (column) are left out; all zeros: paired with nothing."""

    valid: Any  # bool [n]: False in padding
    ids: Any  # int [n]: picture ids
    distinct: Any  # bool [n]: a row and a column that are both distinct are left out where their ids are equal
    place: Any  # int [n]: a row and a column of the same place > 0 are always a pair (the diagonal)


def cosines(query: Any, keys: Any) -> Any:
    """Returns the products [n, m] of L2-normalised embeddings [n, d] and [m, d].

    They are as exact as float32 on accelerators too: a low temperature multiplies every error.
    """
    return jnp.matmul(query, keys.T, precision=jax.lax.Precision.HIGHEST)


def ring_logsumexps(
    query: Any, keys: Any, temperature: Any, rows: Marks, columns: Marks, *, chunk: int = 0, axis_name: Axis = None
) -> tuple[Any, Any]:
    """Returns the logsumexp of each query over all keys, and of each key over all queries.

    Of D devices, each sends its keys and (backward) their gradients D - 1 times.

    Args:
      query: float [n, d].
      keys: float [m, d].
      temperature: float []; a logit is the product of a query and a key divided by it.
      rows: marks of the queries.
      columns: marks of the keys.
      chunk: side of the blocks in which a device computes its part of the matrix; 0: one block.
      axis_name: mapped axes of the devices that hold the other queries and keys; None: there are no others. Places
        are those on a device: pairs by place must be on one device.

    Returns:
      float [n] and float [m].
    """
    sums: Any = _logsumexps(chunk, axis_name, query, keys, temperature, rows, columns)
    return sums


def gathered_logsumexps(
    query: Any, keys: Any, temperature: Any, rows: Marks, columns: Marks, *, chunk: int = 0, axis_name: Axis = None
) -> tuple[Any, Any]:
    """Returns what `ring_logsumexps` returns, with the keys of all devices gathered on each instead of rotated."""
    if axis_name is None:
        return ring_logsumexps(query, keys, temperature, rows, columns, chunk=chunk)
    gather = lambda x: jax.lax.all_gather(x, axis_name, tiled=True)
    begin = jax.lax.axis_index(axis_name) * len(keys)
    move = lambda marks: marks._replace(place=jnp.where(marks.place > 0, marks.place + begin, 0))
    of_rows, partial = ring_logsumexps(
        query, gather(keys), temperature, move(rows), jax.tree.map(gather, move(columns)), chunk=chunk
    )
    largest = jax.lax.pmax(jax.lax.stop_gradient(partial), axis_name)
    of_columns = jnp.log(jax.lax.psum(jnp.exp(partial - largest), axis_name)) + largest
    return of_rows, jax.lax.dynamic_slice_in_dim(of_columns, begin, len(keys))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _logsumexps(chunk: int, axis_name: Axis, query, keys, temperature, rows: Marks, columns: Marks):
    own = _block_logsumexps(chunk, temperature, (query, rows), (keys, columns))
    if axis_name is None:
        return own

    def step(carry):
        key_block, of_rows, of_columns = carry
        key_block = rotate(key_block, axis_name)
        block = _block_logsumexps(chunk, temperature, (query, rows), without_places(*key_block))
        of_columns = rotate(jnp.logaddexp(of_columns, block[1]), axis_name)
        return key_block, jnp.logaddexp(of_rows, block[0]), of_columns

    start = ((keys, columns), own[0], jnp.full_like(own[1], LOWEST))
    _, of_rows, of_columns = over_ring(step, start, axis_name)
    return of_rows, jnp.logaddexp(own[1], of_columns)


def _forward(chunk, axis_name, query, keys, temperature, rows, columns):
    sums: Any = _logsumexps(chunk, axis_name, query, keys, temperature, rows, columns)
    return sums, (query, keys, temperature, rows, columns, *sums)


def _backward(chunk, axis_name, saved, cotangents):
    query, keys, temperature, rows, columns, of_rows, of_columns = saved
    query_block, key_block = (query, rows, of_rows, cotangents[0]), (keys, columns, of_columns, cotangents[1])
    to_query, to_own, to_temperature = _block_gradients(chunk, temperature, query_block, key_block)
    if axis_name is None:
        return to_query, to_own, to_temperature, None, None

    def step(carry):
        key_block, to_query, to_keys, to_temperature = carry
        key_block = rotate(key_block, axis_name)
        block = _block_gradients(chunk, temperature, query_block, without_places(*key_block))
        to_keys = rotate(to_keys + block[1], axis_name)
        return key_block, to_query + block[0], to_keys, to_temperature + block[2]

    start = (key_block, to_query, jnp.zeros_like(to_own), to_temperature)
    _, to_query, to_keys, to_temperature = over_ring(step, start, axis_name)
    return to_query, to_own + to_keys, to_temperature, None, None


_logsumexps.defvjp(_forward, _backward)


def over_ring(step: Callable[[Any], Any], carry: Any, axis_name: Axis) -> Any:
    """Runs `step` once for each of the other devices.

    The metadata keeps the loop of a single step on two devices: without it, the compiler unrolls the loop and keeps the
    key block of the forward pass in memory for the backward pass.
    """
    with set_xla_metadata(**{"skip-simplify-while-loops_trip-count-one": "true"}):
        return jax.lax.scan(lambda carry, _: (step(carry), None), carry, length=jax.lax.axis_size(axis_name) - 1)[0]


def rotate(tree: Any, axis_name: Axis) -> Any:
    """Sends arrays to the next device of the ring, and receives those of the previous one."""
    count = jax.lax.axis_size(axis_name)
    ring = [(i, (i + 1) % count) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis_name, ring), tree)


def without_places(keys: Any, marks: Marks, *rest: Any) -> tuple[Any, ...]:
    """Removes the places of a key block of another device, where they mean other rows."""
    return keys, marks._replace(place=jnp.zeros_like(marks.place)), *rest


def cut(tree: Any, chunk: int) -> Any:
    """Cuts arrays [n, ...] into [blocks, chunk, ...], the last block padded with zeros."""

    def cut(x):
        size = min(chunk or len(x), len(x))
        padded = jnp.pad(x, ((0, -len(x) % size), *((0, 0),) * (x.ndim - 1)))
        return padded.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, tree)


def scan_blocks(body: Callable, carry: Any, blocks: Any) -> tuple[Any, Any]:
    """Scans over blocks; a single block needs no loop."""
    if len(blocks[0]) > 1:
        return jax.lax.scan(body, carry, blocks)
    carry, result = body(carry, jax.tree.map(lambda x: x[0], blocks))
    return carry, jax.tree.map(lambda x: x[None], result)


def _logits(query: Any, keys: Any, temperature: Any, rows: Marks, columns: Marks) -> tuple[Any, Any]:
    """Returns a block of the matrix, with LOWEST for pairs that are left out, and the mask of the other pairs."""
    across = lambda test, name: test(getattr(rows, name)[:, None], getattr(columns, name)[None, :])
    diagonal = across(jnp.equal, "place") & (rows.place > 0)[:, None]
    same = across(jnp.equal, "ids") & across(jnp.logical_and, "distinct")
    paired = diagonal | (across(jnp.logical_and, "valid") & ~same)
    return jnp.where(paired, cosines(query, keys) / temperature, LOWEST), paired


def _block_logsumexps(chunk: int, temperature: Any, query_block: Any, key_block: Any) -> tuple[Any, Any]:
    """Returns both logsumexps, [n] and [m], of the block of (queries, rows) and (keys, columns)."""
    count, key_count = len(query_block[0]), len(key_block[0])
    dtype = jnp.result_type(query_block[0], key_block[0], temperature)
    query_block, key_block = cut(query_block, chunk), cut(key_block, chunk)

    def over_keys(of_rows, key):
        def over_queries(of_columns, block):
            query, rows, of_rows = block
            logits, _ = _logits(query, key[0], temperature, rows, key[1])
            sums = [jax.nn.logsumexp(logits, axis=axis) for axis in (0, 1)]
            return jnp.logaddexp(of_columns, sums[0]), jnp.logaddexp(of_rows, sums[1])

        of_columns, of_rows = scan_blocks(
            over_queries, jnp.full(key[0].shape[:1], LOWEST, dtype), (*query_block, of_rows)
        )
        return of_rows, of_columns

    of_rows, of_columns = scan_blocks(over_keys, jnp.full(query_block[0].shape[:2], LOWEST, dtype), key_block)
    return of_rows.reshape(-1)[:count], of_columns.reshape(-1)[:key_count]


def _block_gradients(chunk: int, temperature: Any, query_block: Any, key_block: Any) -> tuple[Any, Any, Any]:
    """Returns the gradients of queries [n, d], keys [m, d] and temperature [] that come from one block.

    Both blocks are (embeddings, marks, logsumexps, cotangents of the logsumexps).
    """
    (count, width), key_count = query_block[0].shape, len(key_block[0])
    temperature = jnp.asarray(temperature)
    query_block, key_block = cut(query_block, chunk), cut(key_block, chunk)

    def over_keys(carry, key):
        keys, columns, of_columns, from_columns = key

        def over_queries(carry, block):
            to_keys, total = carry
            query, rows, of_rows, from_rows, to_query = block
            logits, paired = _logits(query, keys, temperature, rows, columns)
            share = jnp.exp(logits - of_rows[:, None]) * from_rows[:, None]
            share = jnp.where(paired, share + jnp.exp(logits - of_columns) * from_columns, 0)
            return (to_keys + share.T @ query, total + (share * logits).sum()), to_query + share @ keys

        to_query, total = carry
        start = jnp.zeros_like(keys), total
        (to_keys, total), to_query = scan_blocks(over_queries, start, (*query_block, to_query))
        return (to_query, total), to_keys

    start = jnp.zeros_like(query_block[0]), jnp.zeros_like(query_block[2], shape=())
    (to_query, total), to_keys = scan_blocks(over_keys, start, key_block)
    to_query, to_keys = to_query.reshape(-1, width)[:count], to_keys.reshape(-1, width)[:key_count]
    to_temperature = (-total / temperature).astype(temperature.dtype)
    return to_query / temperature, to_keys / temperature, to_temperature
