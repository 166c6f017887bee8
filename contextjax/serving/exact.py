"""Exact search on the devices, by matrix products in chunks. The scores of a chunk are not sorted to find its best.

A chunk's columns lie in groups. The k best scores lie in the k groups with the highest maxima (of equal maxima: the
first), so only k * GROUP scores of a query are ordered. Of equal scores the lower row comes first, also over groups,
devices and chunks: each of them is in the order of rows, and jax.lax.top_k puts the first of equals first.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextjax.serving.interface import check_queries
from contextjax.serving.storage import DTYPES, Packed, concatenate
from contextjax.sharding import batch_parts, make_mesh, map_over_devices, place_batch
from contextjax.threads import available_cpus
from contextjax.types import UserError

VALUES = 1 << 23  # of a chunk of float32 on one device: 32 MiB
CONVERTED = 4  # chunks of other storages are smaller by this: their float32 form stays in a CPU's cache
GROUP = 32  # columns whose maximum is looked at first
QUERIES = 256  # of one program; more go one after the other
MERGED = 64  # chunks whose answers are merged at a time


class _Chunk(NamedTuple):
    vectors: jax.Array  # [devices, D, W]: columns, so that a product with one query reads them in their order
    scales: jax.Array | None  # [devices, W]
    first: np.int32  # row
    count: np.int32 | None  # rows; the columns beyond are padding. None: there is no padding


class ExactSearch:
    """Embeddings on one or more devices, each of which holds a share of the rows."""

    def __init__(self, dimension: int, storage: str = "float32", *, devices: int | None = None):
        """`devices`: the number of this process's devices to use, from the first; None: all."""
        self.dimension, self.storage = dimension, storage
        self._mesh = make_mesh("data:-1", devices=devices)
        self._width = chunk_width(dimension, storage)
        self._full: list[_Chunk] = []
        self._rest = Packed(np.zeros((0, dimension), DTYPES[storage]), _no_scales(storage))
        self._last: list[_Chunk] = []  # of the rest: none or one

    def __len__(self) -> int:
        return self._rows_per_chunk * len(self._full) + len(self._rest.vectors)

    @property
    def _rows_per_chunk(self) -> int:
        return self._width * batch_parts(self._mesh)

    def add(self, packed: Packed) -> None:
        """Appends rows. At most one chunk of them stays on the host."""
        rest = concatenate([self._rest, packed])
        while len(rest.vectors) >= self._rows_per_chunk:
            self._full.append(self._placed(rest[: self._rows_per_chunk], self._rows_per_chunk * len(self._full)))
            rest = rest[self._rows_per_chunk :]
        self._rest = Packed(rest.vectors.copy(), None if rest.scales is None else rest.scales.copy())
        self._last = [self._placed(self._rest, self._rows_per_chunk * len(self._full))] if len(rest.vectors) else []

    def search(
        self, queries: np.ndarray, k: int, *, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the min(k, rows) best rows of each query [B, D], best first.

        `allowed`, bool [rows]: the rows that may be answers; None: all. Where fewer than k are, the last scores are
        -inf.

        Beside the embeddings a device needs at most `scratch_bytes` for each chunk that it works on: one, or on a CPU
        as many as it has cores.

        Returns:
          (rows int64 [B, k], scores float32 [B, k]).

        Raises:
          UserError: there are no rows, the queries have another dimension or values that are not finite, or k < 1.
        """
        if not len(self):
            raise UserError("The index is empty; add pictures to it before it is searched.")
        queries = check_queries(queries, k, self.dimension)
        k = min(k, len(self))
        allowed_of = self._allowed(allowed)
        answers = [
            self._search(queries[begin : begin + QUERIES], k, allowed_of) for begin in range(0, len(queries), QUERIES)
        ]
        rows, scores = (np.concatenate(column) for column in zip(*answers, strict=True))
        return rows.astype(np.int64), scores

    def _allowed(self, allowed: np.ndarray | None) -> list[jax.Array | None]:
        """Returns which columns of each chunk may be answers, bool [devices, W]; None: all that are no padding."""
        chunks = [*self._full, *self._last]
        if allowed is None:
            return [None] * len(chunks)
        placed, first = [], 0
        for chunk in chunks:
            devices, _, width = chunk.vectors.shape
            own = allowed[first : first + devices * width]
            first += len(own)
            placed.append(place_batch(np.pad(own, (0, devices * width - len(own))).reshape(devices, width), self._mesh))
        return placed

    def _search(
        self, queries: np.ndarray, k: int, allowed: Sequence[jax.Array | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        count = len(queries)
        padding = np.repeat(
            queries[:1], (1 << (count - 1).bit_length()) - count, axis=0
        )  # so few programs are compiled
        placed = jnp.asarray(np.concatenate([queries, padding]))
        chunks = list(zip([*self._full, *self._last], allowed, strict=True))
        threads = min(self._threads, len(chunks))
        shares = [chunks[len(chunks) * i // threads : len(chunks) * (i + 1) // threads] for i in range(threads)]
        run = lambda share: jax.block_until_ready(self._search_chunks(placed, share, k))
        scores, rows = _merge(list(self._pool.map(run, shares) if threads > 1 else map(run, shares)), k=k)
        return np.asarray(rows)[:count], np.asarray(scores)[:count]

    def _search_chunks(
        self, queries: jax.Array, chunks: Sequence[tuple[_Chunk, jax.Array | None]], k: int
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the best (scores, rows) of several successive chunks, each with the columns that may be answers."""
        answers: list[tuple[jax.Array, jax.Array]] = []
        for chunk, allowed in chunks:
            answers.append(_search_chunk(queries, *chunk, allowed, mesh=self._mesh, k=k))
            if len(answers) == MERGED:
                answers = [_merge(answers, k=k)]
        return answers[0] if len(answers) == 1 else _merge(answers, k=k)

    @functools.cached_property
    def _threads(self) -> int:
        """The number of programs that run at once.

        On a CPU, a product with few queries uses one thread, and so does the ordering. Programs of several devices wait
        for each other, and must not be started in different orders.
        """
        return available_cpus() if batch_parts(self._mesh) == 1 and jax.default_backend() == "cpu" else 1

    @functools.cached_property
    def _pool(self) -> concurrent.futures.Executor:
        return concurrent.futures.ThreadPoolExecutor(self._threads)

    def _placed(self, packed: Packed, first: int) -> _Chunk:
        """Puts rows on the devices, padded to a power of two on each."""
        devices, count = batch_parts(self._mesh), len(packed.vectors)
        width = min(self._width, max(GROUP, 1 << (-(-count // devices) - 1).bit_length()))
        rows = np.zeros((devices * width, self.dimension), packed.vectors.dtype)
        rows[:count] = packed.vectors
        columns = np.ascontiguousarray(rows.reshape(devices, width, self.dimension).transpose(0, 2, 1))
        scales = None
        if packed.scales is not None:
            scales = np.pad(packed.scales, (0, devices * width - count)).reshape(devices, width)
        columns, scales = place_batch((columns, scales), self._mesh)
        padded = np.int32(count) if count < devices * width else None
        return _Chunk(columns, scales, np.int32(first), padded)


def chunk_width(dimension: int, storage: str = "float32") -> int:
    """Returns the rows of a chunk on one device, a power of two."""
    values = VALUES if storage == "float32" else VALUES // CONVERTED
    return max(GROUP, 1 << (values // dimension).bit_length() - 1)


def scratch_bytes(dimension: int, *, k: int, queries: int = QUERIES, devices: int = 1) -> int:
    """Returns the most bytes that a device holds beside embeddings to search a chunk, however many rows there are.

    They hold the scores, the chunk as float32 where it is kept otherwise, and the scores to order: k groups, and all
    devices' best.
    """
    width = chunk_width(dimension)
    ordered = min(k * GROUP, width) + devices * min(k, width)
    return 4 * (2 * width * queries + width * dimension + 6 * queries * ordered) + (1 << 16)


@functools.partial(jax.jit, static_argnames=("mesh", "k"))
def _search_chunk(
    queries: Any, vectors: Any, scales: Any, first: Any, count: Any, allowed: Any = None, *, mesh: Any, k: int
) -> Any:
    """Returns the best (scores, rows) [B, <= k] of a chunk, best first. What can't be an answer has the score -inf."""
    search = map_over_devices(functools.partial(_search_device, k=k), mesh, whole=("queries",))
    scores, rows = search(vectors, scales, first, count, allowed, queries=queries)
    best, at = jax.lax.top_k(scores, min(k, scores.shape[1]))
    return best, jnp.take_along_axis(rows, at, axis=1)


def _search_device(
    vectors, scales, first, count, allowed, *, queries, k: int, axis_name
) -> tuple[jax.Array, jax.Array]:
    """Returns the best of a device's columns [1, D, W] and all others': (scores, rows) [B, devices * min(k, W)]."""
    width = vectors.shape[2]
    columns = vectors[0].astype(jnp.float32) if scales is None else vectors[0].astype(jnp.float32) * scales[0]
    scores = jax.lax.dot_general(queries, columns, (((1,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
    if allowed is not None:
        scores, count = jnp.where(allowed[0], scores, -jnp.inf), None
    before = jax.lax.axis_index(axis_name) * width
    best, at = _best_columns(scores, None if count is None else count - before, min(k, width))
    gather = lambda x: jax.lax.all_gather(x, axis_name, axis=1, tiled=True)
    return gather(best), gather(first + before + at)


def _best_columns(scores: jax.Array, count: jax.Array | None, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the k best (scores, columns) of the first `count` columns (None: all) of scores [B, W], best first."""
    queries, width = scores.shape
    known = lambda scores, columns: scores if count is None else jnp.where(columns < count, scores, -jnp.inf)
    if width // GROUP <= k:
        return jax.lax.top_k(_without_signed_zeros(known(scores, jnp.arange(width))), k)
    groups = scores.reshape(queries, -1, GROUP)
    maxima = known(groups, jnp.arange(width).reshape(-1, GROUP)).max(axis=-1)
    taken = jnp.sort(jax.lax.top_k(_without_signed_zeros(maxima), k)[1], axis=1)  # in the order of rows again
    columns = (taken[:, :, None] * GROUP + jnp.arange(GROUP)).reshape(queries, -1)
    candidates = jnp.take_along_axis(groups, taken[:, :, None], axis=1).reshape(queries, -1)
    best, at = jax.lax.top_k(_without_signed_zeros(known(candidates, columns)), k)
    return best, jnp.take_along_axis(columns, at, axis=1)


def _without_signed_zeros(scores: jax.Array) -> jax.Array:
    """Returns scores with -0.0 as 0.0, after which top_k would put it."""
    return jnp.where(scores == 0, 0.0, scores)


@functools.partial(jax.jit, static_argnames="k")
def _merge(answers: Sequence[tuple[Any, Any]], *, k: int) -> tuple[Any, Any]:
    """Returns the k best of several answers, whose rows ascend from one to the next where scores are equal."""
    scores, rows = (jnp.concatenate(column, axis=1) for column in zip(*answers, strict=True))
    best, at = jax.lax.top_k(scores, min(k, scores.shape[1]))
    return best, jnp.take_along_axis(rows, at, axis=1)


def _no_scales(storage: str) -> np.ndarray | None:
    return np.zeros(0, np.float32) if storage == "int8" else None
