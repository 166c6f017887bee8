"""The moments at which a training loop asks for its next batch.

The differences are the times of steps: before each step the loop waits for the last step but one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any


class Enough(Exception):
    """Ends a run from within its stream of batches, without a last checkpoint or evaluation."""


def clocked(
    moments: list[float], *, limit: int | None = None, change: Callable[[Any], Iterator[Any]] = iter
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Returns a `through` for experiments.shared.training.train, which records when each batch is handed over.

    Args:
      moments: is filled with values of time.perf_counter, one for each batch.
      limit: the most batches; the next one raises Enough.
      change: is applied to the stream before it is clocked.
    """

    def through(stream: Iterator[Any]) -> Iterator[Any]:
        for item in change(stream):
            moments.append(time.perf_counter())
            if limit is not None and len(moments) > limit:
                raise Enough
            yield item

    return through
