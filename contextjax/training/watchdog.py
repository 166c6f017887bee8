"""The watchdog: ends a process in which no step finishes any more."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Iterator

STUCK = 75  # exit code of a process that its watchdog has ended


class Watchdog:
    """Ends a process in which no step has finished for `timeout` seconds, and prints the stack of each of its threads.

    A step that waits for another process, which is stuck, would wait for ever; so would the first batch of a loader
    that hangs. Until `step_done` is first called, and in `paused` blocks, anything may take its time. With 0 seconds
    nothing is watched.
    """

    def __init__(self, timeout: float):
        self._timeout, self._last, self._paused, self._ended = timeout, math.inf, 0, threading.Event()
        if timeout:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def step_done(self) -> None:
        """Starts the time again: a step has been done, or the first batch is about to be read."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Lets the block, an evaluation or a checkpoint, take its time."""
        self._paused += 1
        try:
            yield
        finally:
            if self._last < math.inf:
                self._last = time.monotonic()
            self._paused -= 1

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._timeout / 4)):
            if not self._paused and time.monotonic() - self._last > self._timeout:
                print(
                    f"error: No step has been done for {self._timeout:g} seconds (--step_timeout); this process waits "
                    "for another one, or its loader hangs. Where its threads are:",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                faulthandler.dump_traceback(2)  # the process's standard error, even if sys.stderr is replaced
                os._exit(STUCK)
