"""Exact search in three storages, FAISS, and reading the memory, timed in turn on the same vectors."""

from __future__ import annotations

import concurrent.futures
import ctypes
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from contextjax.serving.exact import ExactSearch
from contextjax.serving.storage import DTYPES, pack
from experiments.comparisons.measure import rounds as timed_in_rounds

ROW_BLOCK = 8192  # rows that are drawn at a time


def compare(*, rows: int, dimension: int, batch: int, top: int, rounds: int, seconds: float, threads: int) -> dict:
    """Checks that all find the same, then times a batch and one query of each.

    Returns:
      recall: storage -> share of FAISS's neighbours that are found, and the largest difference of scores.
      seconds: name -> a timing of each round.
      summary: medians over rounds of the ratios of timings.
    """
    import faiss

    stored, queries = vectors(rows, dimension, seed=0), vectors(batch, dimension, seed=1)
    index: Any = faiss.IndexFlatIP(dimension)
    index.add(stored)
    scores, expected = index.search(queries, top)
    searches, recall = {}, {}
    for storage in DTYPES:
        searches[storage] = ExactSearch(dimension, storage, devices=1)
        searches[storage].add(pack(stored, storage))
        found, own = searches[storage].search(queries, top)
        same = np.mean([len(set(a) & set(b)) / top for a, b in zip(found, expected, strict=True)])
        recall[storage] = {"recall": float(same), "difference": float(np.abs(own - scores).max())}
    programs: dict[str, Callable[[], Any]] = {
        "read": reader(stored, threads),
        "faiss": lambda: index.search(queries, top),
    }
    programs |= {name: lambda search=search: search.search(queries, top) for name, search in searches.items()}
    programs["faiss, one"] = lambda: index.search(queries[:1], top)
    programs |= {f"{name}, one": lambda search=search: search.search(queries[:1], top)
                 for name, search in searches.items()}  # fmt: skip
    times = dict(zip(programs, timed_in_rounds(list(programs.values()), rounds, seconds=seconds), strict=True))
    bytes_read = {name: rows * dimension * dtype.itemsize for name, dtype in DTYPES.items()}
    return {"recall": recall, "seconds": times, "bytes": bytes_read, "summary": summary(times, bytes_read)}


def vectors(count: int, dimension: int, *, seed: int) -> np.ndarray:
    """Random unit vectors, float32 [count, dimension]."""
    rng = np.random.default_rng(seed)
    found = np.empty((count, dimension), np.float32)
    for begin in range(0, count, ROW_BLOCK):
        block = found[begin : begin + ROW_BLOCK]
        rng.standard_normal(out=block, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return found


def reader(stored: np.ndarray, threads: int) -> Callable[[], Any]:
    """Reads all bytes of an array once, in threads: libc's memchr looks for a byte that is not there.

    It is the fastest that reads and does nothing else, and Python's threads run beside it.
    """
    memchr = ctypes.CDLL(None).memchr
    memchr.restype, memchr.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    ones = np.ones(stored.nbytes, np.uint8)  # of its own: any byte may be in the vectors
    parts = np.array_split(ones, threads)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda part: memchr(part.ctypes.data, 0, part.nbytes), parts))


def summary(times: Mapping[str, list[float]], bytes_read: Mapping[str, int]) -> dict[str, float]:
    """Medians over the rounds.

    A batch: FAISS's time over ours. One query: the bytes of the index over our time, as a share of what `read` reaches
    with as many bytes as float32 has.
    """
    bandwidth = [bytes_read["float32"] / t for t in times["read"]]
    found = {"read_gb_per_second": statistics.median(bandwidth) / 1e9}
    for storage, size in bytes_read.items():
        batch, one = times[storage], times[f"{storage}, one"]
        ratios = [theirs / ours for ours, theirs in zip(batch, times["faiss"], strict=True)]
        shares = [size / t / rate for t, rate in zip(one, bandwidth, strict=True)]
        found |= {
            f"{storage}_of_faiss": statistics.median(ratios),
            f"{storage}_of_faiss_min": min(ratios),
            f"{storage}_of_faiss_max": max(ratios),
            f"{storage}_one_query_of_bandwidth": statistics.median(shares),
            f"{storage}_one_query_of_faiss": statistics.median(
                theirs / ours for ours, theirs in zip(one, times["faiss, one"], strict=True)
            ),
        }
    return found


def table(found: Mapping[str, Any]) -> str:
    """Markdown: a row for each storage."""
    columns = (
        "storage",
        "GB",
        "recall",
        "a batch, of FAISS (min to max)",
        "one query, of FAISS",
        "of the read bandwidth",
    )
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    s = found["summary"]
    for storage, size in found["bytes"].items():
        low, high = s[f"{storage}_of_faiss_min"], s[f"{storage}_of_faiss_max"]
        cells = (
            storage,
            f"{size / 1e9:.2f}",
            f"{100 * found['recall'][storage]['recall']:.2f} %",
            f"{s[f'{storage}_of_faiss']:.2f}x ({low:.2f} to {high:.2f})",
            f"{s[f'{storage}_one_query_of_faiss']:.2f}x",
            f"{100 * s[f'{storage}_one_query_of_bandwidth']:.0f} % of {s['read_gb_per_second']:.1f} GB/s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
