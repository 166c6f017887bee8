"""The watch over a run: compilations, steps that are sick, and steps that never end."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from contextjax.sharding import is_first_process, rows_of_all
from contextjax.training.metrics_log import METRICS
from contextjax.types import UserError

STUCK = 75  # exit code of a process that its watchdog has ended
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts XLA compilations of this process, so that recompiles are seen rather than assumed away."""

    _total = 0
    _listening = False

    def __init__(self):
        if not CompileCounter._listening:
            CompileCounter._listening = True
            jax.monitoring.register_event_duration_secs_listener(CompileCounter._on_event)
        self._expected = CompileCounter._total

    @staticmethod
    def _on_event(event: str, duration_secs: float, **_: Any) -> None:
        CompileCounter._total += event == COMPILE_EVENT

    @property
    def unexpected(self) -> int:
        """Compilations outside of `expected` blocks, since the counter was made."""
        return CompileCounter._total - self._expected

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """What is compiled in this block does not count."""
        before = CompileCounter._total
        yield
        self._expected += CompileCounter._total - before


class BadStepWatch:
    """Tells of sick steps, and ends the run after `limit` in a row, without ever waiting for the newest step."""

    def __init__(
        self, limit: int, name_records: Callable[[np.ndarray], Sequence[str]], log: Callable[[int, dict], None]
    ):
        """`log` takes the step and what is known of it."""
        self._limit, self._name_records, self._log = limit, name_records, log
        self._previous: tuple[int, Any, np.ndarray] | None = None

    def add(self, step: int, metrics: Mapping[str, Any], records: np.ndarray) -> None:
        """A step has been started."""
        self._previous = (step, metrics, records)

    def check_previous(self) -> None:
        """Waits for the step that was added last, and logs it where it is sick.

        Raises:
          UserError: it was the last of too many.
        """
        if self._previous is None:
            return
        step, metrics, records = self._previous
        self._previous = None
        if not (bad := int(metrics["bad_steps"])):
            return
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        what = (
            f"a gradient norm of {norm:.3g}, far above those before it"
            if is_finite
            else "a non-finite loss or gradient"
        )
        names = list(self._name_records(rows_of_all(records)))
        self._log(step, {"kind": "spike" if is_finite else "not finite", "loss": repr(loss), "grad_norm": repr(norm),
                         "records": names})  # fmt: skip
        told = f"Step {step} had {what} ({bad} in a row, training.max_bad_steps is {self._limit}); the parameters are"
        if bad >= self._limit:
            raise UserError(
                f"{told} those before it. Its records: {', '.join(names)}. Look at them, or lower the learning rate."
            )
        if is_first_process():
            print(f"{told} left as they were. Its records are in {METRICS}.", file=sys.stderr, flush=True)


class Watchdog:
    """Ends a process in which no step has finished for `timeout` seconds, after the stacks of its threads.

    A step that waits for another process, which is stuck, would wait for ever; so would the first batch of a loader
    that hangs. Until `step_done` is first called, and in `paused` blocks, anything may take its time. 0 seconds:
    nothing is watched.
    """

    def __init__(self, timeout: float):
        self._timeout, self._last, self._paused, self._ended = timeout, math.inf, 0, threading.Event()
        if timeout:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def step_done(self) -> None:
        """A step has been done, or the first batch is about to be read."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in this block may take its time: an evaluation, a checkpoint."""
        self._paused += 1
        try:
            yield
        finally:
            if self._last < math.inf:
                self._last = time.monotonic()
            self._paused -= 1

    def close(self) -> None:
        """Nothing is watched any more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._timeout / 4)):
            if not self._paused and time.monotonic() - self._last > self._timeout:
                print(
                    f"error: No step has been done for {self._timeout:g} seconds (--step_timeout); this process waits "
                    "for another one, or its loader hangs. Where its threads are:",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                faulthandler.dump_traceback(2)  # standard error, whatever sys.stderr is
                os._exit(STUCK)
