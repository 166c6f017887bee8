"""Moments at which a loop asks for its next batch: one a step, for the loop waits for the step before the newest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any


class Enough(Exception):
    """Ends a run from within its stream of batches: no last checkpoint, no last evaluation."""


def clocked(
    moments: list[float], *, limit: int | None = None, change: Callable[[Any], Iterator[Any]] = iter
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A `through` for experiments.shared.training.train.

    Args:
      moments: at which a batch was asked for and there: filled meanwhile.
      limit: raise Enough instead of giving out more batches than these.
      change: of the stream, before it is clocked.
    """

    def through(stream: Iterator[Any]) -> Iterator[Any]:
        for item in change(stream):
            moments.append(time.perf_counter())
            if limit is not None and len(moments) > limit:
                raise Enough
            yield item

    return through
