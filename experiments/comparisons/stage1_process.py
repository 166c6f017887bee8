"""A library's program in a process of its own: neither's threads nor memory are in the other's way."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from contextjax.types import UserError
from experiments.comparisons import measure

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Process:
    """Runs methods of what `build(*arguments)` gives, elsewhere; it sleeps while it is not asked."""

    def __init__(self, name: str, build: Callable[..., Any], *arguments: Any):
        """Starts it; `name` is for complaints."""
        context = multiprocessing.get_context("spawn")
        self._name, (self._end, other) = name, context.Pipe()
        self._process = context.Process(target=_serve, args=(other, build, arguments), daemon=True)
        self._process.start()
        other.close()

    def ask(self, method: str) -> Any:
        """What the method of that name returns; "resident": the most memory that a `step` has resident, in bytes.

        Raises:
          UserError: the process ended.
        """
        try:
            self._end.send(method)
            return self._end.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                f"The process of {self._name} ended at '{method}'; what it said stands above, and if it said nothing, "
                "memory ran out: give a smaller --batch."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.close()  # at which it ends by itself
        self._process.join()


def _serve(end: Any, build: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    measure.keep_memory()
    program = build(*arguments)
    while True:
        try:
            method = end.recv()
        except EOFError:
            return
        end.send(_resident(program.step) if method == "resident" else getattr(program, method)())


def _resident(step: Callable[[], Any]) -> float:
    """The process's peak resident bytes during a step, libraries and weights included; NaN where none is told."""
    try:
        CLEAR.write_text("5", encoding="utf-8")  # the peak is counted anew
        step()
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    except OSError:
        return float("nan")
    return 1024.0 * int(found.group(1)) if found else float("nan")
