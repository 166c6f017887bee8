"""Dynamic batching: requests of several clients that come at about the same time are computed together."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any


class Full(Exception):
    """A queue in which so many wait that another one would wait too long."""


class Batcher:
    """An async function of one item; `run` computes the results of several at once, in a thread of its own.

    A result may be an exception, which is raised for its item. A batch begins with the first item that waits, and is
    run when `largest` are there or `wait` seconds have passed. While one is run, the next gathers.
    """

    def __init__(
        self, run: Callable[[Sequence[Any]], Sequence[Any]], *, largest: int, wait: float, waiting: int,
        observe: Callable[[int], None] = lambda size: None,
    ):  # fmt: skip
        """`waiting`: items that may wait; `observe` is called with the size of every batch."""
        self._run, self._largest, self._wait, self._waiting, self._observe = run, largest, wait, waiting, observe
        self._queue: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._came, self._is_full = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of items that wait."""
        return len(self._queue)

    def check(self, count: int = 1) -> None:
        """Raises Full where so many items more would be refused: they don't fit, and others wait."""
        if self._queue and len(self._queue) + count > self._waiting:
            raise Full

    async def __call__(self, item: Any) -> Any:
        """Returns the result of `run` for the item.

        Raises:
          Full: too many wait.
        """
        return (await self.many([item]))[0]

    async def many(self, items: Sequence[Any]) -> list[Any]:
        """Returns the results of `run` for one or more items of a client's, which are taken or refused together.

        Raises:
          Full: too many wait.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        self.check(len(items))
        futures = [asyncio.get_running_loop().create_future() for _ in items]
        self._queue.extend(zip(items, futures, strict=True))
        self._came.set()
        if len(self._queue) >= self._largest:
            self._is_full.set()
        return await asyncio.gather(*futures)

    async def close(self) -> None:
        """Ends the thread. Nothing may wait any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            await self._came.wait()
            try:
                async with asyncio.timeout(self._wait):
                    await self._is_full.wait()
            except TimeoutError:
                pass
            taken = [self._queue.popleft() for _ in range(min(self._largest, len(self._queue)))]
            if not self._queue:
                self._came.clear()
            if len(self._queue) < self._largest:
                self._is_full.clear()
            await self._finish([(item, future) for item, future in taken if not future.done()])  # cancelled

    async def _finish(self, taken: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
        if not taken:
            return
        self._observe(len(taken))
        items = [item for item, _ in taken]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        except Exception as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
