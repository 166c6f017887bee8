"""A library's program in a process of its own, so that the threads and memory of two libraries don't interfere."""

from __future__ import annotations

import multiprocessing
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from contextjax.types import UserError
from experiments.shared.machine import keep_memory

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Process:
    """Calls methods of `build(*arguments)` in another process, which sleeps while it is not asked."""

    def __init__(self, name: str, build: Callable[..., Any], *arguments: Any):
        """Starts the process; `name` is for error messages."""
        context = multiprocessing.get_context("spawn")
        self._name, (self._end, other) = name, context.Pipe()
        self._process = context.Process(target=_serve, args=(other, build, arguments), daemon=True)
        self._process.start()
        other.close()

    def ask(self, method: str) -> Any:
        """Returns the result of the method; "resident" is the peak of resident bytes during a call of `step`.

        Raises:
          UserError: the process ended.
        """
        try:
            self._end.send(method)
            return self._end.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                f"The process of {self._name} ended at '{method}'; its own message stands above. If there is none, "
                "memory ran out: give a smaller --batch."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.close()  # at which the process ends by itself
        self._process.join()


def _serve(end: Any, build: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the process that asks it
    keep_memory()
    program = build(*arguments)
    while True:
        try:
            method = end.recv()
        except EOFError:
            return
        end.send(_resident(program.step) if method == "resident" else getattr(program, method)())


def _resident(step: Callable[[], Any]) -> float:
    """Peak of the process's resident bytes during a step, libraries and weights included; NaN where it is unknown."""
    try:
        CLEAR.write_text("5", encoding="utf-8")  # resets the peak
        step()
        peak = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    except OSError:
        return float("nan")
    return 1024.0 * int(peak.group(1)) if peak else float("nan")
