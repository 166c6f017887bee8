"""Exact search beside FAISS (IndexFlatIP), one query beside the memory's read bandwidth, and recall.

python -m experiments.comparisons search [--rows=200000] [--dimension=512] [--batch=256] [--pairs=5] [--threads=2]
    [--output=results/search_speed.json]

Random unit vectors: no neighbour is near, so the best of them lie close together, which is hard on int8. FAISS comes
with the extra `[comparisons]`.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contextjax.serving.exact import ExactSearch
from contextjax.serving.storage import DTYPES, pack
from experiments.comparisons.harness import Case, Program, Table, measure, option

PACKAGES = ("faiss",)
ROW_BLOCK = 8192  # rows that are drawn at a time
READING = "reading the memory"
NOTES = {
    "recall": "share of FAISS's neighbours that are found; difference: the largest of scores",
    "share of the read bandwidth": "the bytes of the index over the time of one query, beside reading the bytes of "
    "float32 vectors in the same round",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    rows: int = option(200_000, "Vectors in the index.", lower_bound=1000)
    dimension: int = option(512, "Dimension of the vectors.", lower_bound=1)
    batch: int = option(256, "Queries of a batch.", lower_bound=1)
    top: int = option(10, "Neighbours that are asked for.", lower_bound=1)
    pairs: int = option(5, "Rounds: a timing of each.", lower_bound=1)
    threads: int = option(2, "Threads of both.", lower_bound=1)
    seconds: float = option(1.5, "The least time of one timing.", lower_bound=0.0)


def compare(options: Options) -> dict[str, Table]:
    """Returns "programs" (a batch and one query of each), "ratios" and "storages" (recall, bandwidth)."""
    import faiss

    stored = vectors(options.rows, options.dimension, seed=0)
    queries = vectors(options.batch, options.dimension, seed=1)
    index: Any = faiss.IndexFlatIP(options.dimension)
    index.add(stored)
    searches, storages = {"faiss": index.search}, {}
    scores, expected = index.search(queries, options.top)
    for storage, dtype in DTYPES.items():
        exact = ExactSearch(options.dimension, storage, devices=1)
        exact.add(pack(stored, storage))
        rows, own = exact.search(queries, options.top)
        same = np.mean([len(set(a) & set(b)) / options.top for a, b in zip(rows, expected, strict=True)])
        searches[storage] = exact.search
        storages[storage] = {
            "bytes": options.rows * options.dimension * dtype.itemsize,
            "recall": float(same),
            "difference": float(np.abs(own - scores).max()),
        }
    programs: dict[str, Program] = {READING: reader(stored.nbytes, options.threads)}
    for asked, suffix in ((queries, ""), (queries[:1], ", one query")):
        for name, search in searches.items():
            programs[name + suffix] = lambda search=search, asked=asked: search(asked, options.top)
    ratios = [(f"faiss{suffix}", storage + suffix) for storage in storages for suffix in ("", ", one query")]
    result = measure(Case(programs, ratios=ratios), pairs=options.pairs, seconds=options.seconds)
    for storage, shares in bandwidth(result["programs"], storages, stored.nbytes).items():
        storages[storage] |= shares
    return {**result, "storages": storages}


def vectors(count: int, dimension: int, *, seed: int) -> np.ndarray:
    """Returns random unit vectors, float32 [count, dimension]."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((count, dimension), np.float32)
    for begin in range(0, count, ROW_BLOCK):
        block = drawn[begin : begin + ROW_BLOCK]
        rng.standard_normal(out=block, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return drawn


def reader(size: int, threads: int) -> Callable[[], Any]:
    """Returns a program that reads `size` bytes of memory once, in threads.

    libc's memchr looks for a byte that is not there: nothing else reads as fast without computing, and it runs outside
    Python's lock.
    """
    memchr = ctypes.CDLL(None).memchr
    memchr.restype, memchr.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    blocks = np.array_split(np.ones(size, np.uint8), threads)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda block: memchr(block.ctypes.data, 0, block.nbytes), blocks))


def bandwidth(programs: Mapping[str, Mapping[str, Sequence[float]]], storages: Table, size: int) -> Table:
    """Returns for each storage the bandwidth of one query, as a share of what reading `size` bytes reaches.

    All are medians over the rounds; the bandwidth itself is in bytes a second.
    """
    rates = [size / t for t in programs[READING]["seconds"]]
    return {
        storage: {
            "share of the read bandwidth": statistics.median(
                row["bytes"] / t / rate
                for t, rate in zip(programs[f"{storage}, one query"]["seconds"], rates, strict=True)
            ),
            "read bandwidth, bytes/s": statistics.median(rates),
        }
        for storage, row in storages.items()
    }
