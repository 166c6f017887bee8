"""A counter of XLA compilations: a step that is compiled again is a fault that costs minutes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts the XLA compilations of this process, so that recompiles are seen rather than assumed away."""

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
        """Leaves the compilations of the block out of the count."""
        before = CompileCounter._total
        yield
        self._expected += CompileCounter._total - before
