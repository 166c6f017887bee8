"""Logsumexps along both axes of a masked similarity matrix that is never held: in blocks, and around a ring of devices.

Backward, the blocks are computed again from the logsumexps, so that nothing of the matrix is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

Axis = str | tuple[str, ...] | None
LOWEST = -1e9  # a logit nobody picks; finite, so that a row without candidates stays finite


class Marks(NamedTuple):
    """What decides whether a row and a column of the matrix meet; zeros are a row or column that meets none."""

    valid: Any  # bool [n]
    ids: Any  # int [n]
    distinct: Any  # bool [n]: a row and a column that both say so do not meet where their ids are equal
    place: Any  # int [n]: a row and a column of the same place > 0 always meet (the diagonal)


def cosines(query: Any, candidates: Any) -> Any:
    """[n, m] of normalised embeddings [n, d] and [m, d]; as exact as float32 is on accelerators too, for a low
    temperature multiplies every error."""
    return jnp.matmul(query, candidates.T, precision=jax.lax.Precision.HIGHEST)


def logsumexps(
    query: Any,
    candidates: Any,
    temperature: Any,
    rows: Marks,
    columns: Marks,
    *,
    chunk: int = 0,
    axis_name: Axis = None,
) -> tuple[Any, Any]:
    """Of each query over all candidates, and of each candidate over all queries.

    Args:
      query: float [n, d].
      candidates: float [m, d].
      temperature: float []; a logit is the product of a query and a candidate over it.
      rows: of the queries.
      columns: of the candidates.
      chunk: side of the blocks that the matrix is computed in; 0: all queries by all candidates of a device.
      axis_name: mapped axes of the devices that hold the rest of queries and candidates; None: there is no rest.
        Queries stay, candidates go around: of n devices, each sends its candidates and (backward) their gradients
        n - 1 times. Places are those on the device: what meets by its place must be on one device.

    Returns:
      float [n] and [m].
    """
    found: Any = _logsumexps(chunk, axis_name, query, candidates, temperature, rows, columns)
    return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _logsumexps(chunk: int, axis_name: Axis, query, candidates, temperature, rows: Marks, columns: Marks):
    own = _sums(chunk, temperature, (query, rows), (candidates, columns))
    if axis_name is None:
        return own

    def visit(carry):
        guests, of_rows, of_guests = carry
        guests = _pass_on(guests, axis_name)
        found = _sums(chunk, temperature, (query, rows), _away(*guests))
        of_guests = _pass_on(jnp.logaddexp(of_guests, found[1]), axis_name)
        return guests, jnp.logaddexp(of_rows, found[0]), of_guests

    start = ((candidates, columns), own[0], jnp.full_like(own[1], LOWEST))
    _, of_rows, of_columns = _around(visit, start, axis_name)
    return of_rows, jnp.logaddexp(own[1], of_columns)


def _forward(chunk, axis_name, query, candidates, temperature, rows, columns):
    found: Any = _logsumexps(chunk, axis_name, query, candidates, temperature, rows, columns)
    return found, (query, candidates, temperature, rows, columns, *found)


def _backward(chunk, axis_name, saved, cotangents):
    query, candidates, temperature, rows, columns, of_rows, of_columns = saved
    hosts, guests = (query, rows, of_rows, cotangents[0]), (candidates, columns, of_columns, cotangents[1])
    to_query, to_own, to_temperature = _gradients(chunk, temperature, hosts, guests)
    if axis_name is None:
        return to_query, to_own, to_temperature, None, None

    def visit(carry):
        guests, to_query, to_guests, to_temperature = carry
        guests = _pass_on(guests, axis_name)
        found = _gradients(chunk, temperature, hosts, _away(*guests))
        to_guests = _pass_on(to_guests + found[1], axis_name)
        return guests, to_query + found[0], to_guests, to_temperature + found[2]

    start = (guests, to_query, jnp.zeros_like(to_own), to_temperature)
    _, to_query, to_candidates, to_temperature = _around(visit, start, axis_name)
    return to_query, to_own + to_candidates, to_temperature, None, None


_logsumexps.defvjp(_forward, _backward)


def _around(visit: Callable[[Any], Any], carry: Any, axis_name: Axis) -> Any:
    """`visit` for each of the other devices.

    On two devices the loop must stay one, too: taken apart, the compiler keeps the guests of the forward pass for the
    backward one.
    """
    with set_xla_metadata(**{"skip-simplify-while-loops_trip-count-one": "true"}):
        return jax.lax.scan(lambda carry, _: (visit(carry), None), carry, length=jax.lax.axis_size(axis_name) - 1)[0]


def _pass_on(tree: Any, axis_name: Axis) -> Any:
    """To the next device. After as many times as there are devices, all is home."""
    count = jax.lax.axis_size(axis_name)
    ring = [(i, (i + 1) % count) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis_name, ring), tree)


def _away(embeddings: Any, marks: Marks, *rest: Any) -> tuple[Any, ...]:
    """Candidates that are not on the device of those that they meet by their place."""
    return embeddings, marks._replace(place=jnp.zeros_like(marks.place)), *rest


def _cut(tree: Any, chunk: int) -> Any:
    """Arrays [n, ...] as [blocks, chunk, ...], filled up with zeros."""

    def cut(x):
        size = min(chunk or len(x), len(x))
        filled = jnp.pad(x, ((0, -len(x) % size), *((0, 0),) * (x.ndim - 1)))
        return filled.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _scan(body: Callable, carry: Any, blocks: Any) -> tuple[Any, Any]:
    """Over blocks; one alone needs no loop."""
    if len(blocks[0]) > 1:
        return jax.lax.scan(body, carry, blocks)
    carry, found = body(carry, jax.tree.map(lambda x: x[0], blocks))
    return carry, jax.tree.map(lambda x: x[None], found)


def _logits(query: Any, candidates: Any, temperature: Any, rows: Marks, columns: Marks) -> tuple[Any, Any]:
    """A block of the matrix, LOWEST where row and column do not meet, and where they do."""
    across = lambda test, name: test(getattr(rows, name)[:, None], getattr(columns, name)[None, :])
    diagonal = across(jnp.equal, "place") & (rows.place > 0)[:, None]
    same = across(jnp.equal, "ids") & across(jnp.logical_and, "distinct")
    meet = diagonal | (across(jnp.logical_and, "valid") & ~same)
    return jnp.where(meet, cosines(query, candidates) / temperature, LOWEST), meet


def _sums(chunk: int, temperature: Any, hosts: Any, guests: Any) -> tuple[Any, Any]:
    """Both logsumexps of the matrix of (queries, rows) and (candidates, columns)."""
    count, guest_count, dtype = len(hosts[0]), len(guests[0]), jnp.result_type(hosts[0], guests[0], temperature)
    hosts, guests = _cut(hosts, chunk), _cut(guests, chunk)

    def over_guests(of_hosts, guest):
        def over_hosts(of_guest, block):
            query, rows, of_host = block
            logits, _ = _logits(query, guest[0], temperature, rows, guest[1])
            sums = [jax.nn.logsumexp(logits, axis=axis) for axis in (0, 1)]
            return jnp.logaddexp(of_guest, sums[0]), jnp.logaddexp(of_host, sums[1])

        of_guest, of_hosts = _scan(over_hosts, jnp.full(guest[0].shape[:1], LOWEST, dtype), (*hosts, of_hosts))
        return of_hosts, of_guest

    of_hosts, of_guests = _scan(over_guests, jnp.full(hosts[0].shape[:2], LOWEST, dtype), guests)
    return of_hosts.reshape(-1)[:count], of_guests.reshape(-1)[:guest_count]


def _gradients(chunk: int, temperature: Any, hosts: Any, guests: Any) -> tuple[Any, Any, Any]:
    """Of queries, candidates and temperature; hosts and guests come with their logsumexps and these' cotangents."""
    (count, width), guest_count = hosts[0].shape, len(guests[0])
    temperature = jnp.asarray(temperature)
    hosts, guests = _cut(hosts, chunk), _cut(guests, chunk)

    def over_guests(carry, guest):
        candidates, columns, of_columns, from_columns = guest

        def over_hosts(carry, block):
            to_guest, total = carry
            query, rows, of_rows, from_rows, to_host = block
            logits, meet = _logits(query, candidates, temperature, rows, columns)
            share = jnp.exp(logits - of_rows[:, None]) * from_rows[:, None]
            share = jnp.where(meet, share + jnp.exp(logits - of_columns) * from_columns, 0)
            return (to_guest + share.T @ query, total + (share * logits).sum()), to_host + share @ candidates

        to_hosts, total = carry
        start = jnp.zeros_like(candidates), total
        (to_guest, total), to_hosts = _scan(over_hosts, start, (*hosts, to_hosts))
        return (to_hosts, total), to_guest

    start = jnp.zeros_like(hosts[0]), jnp.zeros_like(hosts[2], shape=())
    (to_hosts, total), to_guests = _scan(over_guests, start, guests)
    to_hosts, to_guests = to_hosts.reshape(-1, width)[:count], to_guests.reshape(-1, width)[:guest_count]
    to_temperature = (-total / temperature).astype(temperature.dtype)
    return to_hosts / temperature, to_guests / temperature, to_temperature
