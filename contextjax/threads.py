"""The number of CPUs that this process has, and a thread pool that works ahead of the consumer of its results."""

from __future__ import annotations

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cpus() -> int:
    """Returns the number of CPUs that this process may use: its affinity, where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int, threads: int | None = None
) -> Iterator[Result]:
    """Yields `function(item)` for each item, in order, while threads work on the items that follow.

    An exception of `function` is raised where its result is due. When the reader stops early, calls that have not begun
    are cancelled and those under way are waited for.

    Args:
      function: called in a thread; it should release Python's lock for most of its time, as Pillow, sockets and
        numpy do.
      items: read one at a time, in the caller's thread.
      ahead: items that are worked on or wait as results beyond the one that is due, which bounds the memory; 0: none.
      threads: how many; None: one for each available CPU.

    Example:
      for picture in map_ahead(images.load, paths, ahead=64):
          ...
    """
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(threads or available_cpus())
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
