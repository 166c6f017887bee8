"""The watch over bad steps: those whose loss or gradient norm is not finite, or far above those before."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contextjax.sharding import is_first_process, rows_of_all
from contextjax.training.metrics_log import METRICS, MetricsLog
from contextjax.types import UserError


class BadStepWatch:
    """Reports bad steps, and ends the run after `limit` in a row, without ever waiting for the newest step."""

    def __init__(self, limit: int, name_records: Callable[[np.ndarray], Sequence[str]], log: MetricsLog):
        self._limit, self._name_records, self._log = limit, name_records, log
        self._previous: tuple[int, Mapping[str, Any], np.ndarray] | None = None

    def __enter__(self) -> BadStepWatch:
        return self

    def __exit__(self, error: type | None, *_: Any) -> None:
        if error is None:
            self.check_previous()

    def add(self, step: int, metrics: Mapping[str, Any], records: np.ndarray) -> None:
        """Registers a step that has been started; `records` are the row numbers of its batch."""
        self._previous = (step, metrics, records)

    def check_previous(self) -> None:
        """Waits for the step that was added last, and logs it with its records if it is bad.

        Raises:
          UserError: it is the last of too many bad steps in a row.
        """
        if self._previous is None:
            return
        step, metrics, records = self._previous
        self._previous = None
        if not (bad := int(metrics["bad_steps"])):
            return
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        is_spike = math.isfinite(loss) and math.isfinite(norm)
        problem = f"a gradient norm of {norm:.3g}, far above those before it" if is_spike else (
            "a non-finite loss or gradient")  # fmt: skip
        names = list(self._name_records(rows_of_all(records)))
        described = {"kind": "spike" if is_spike else "not finite", "loss": repr(loss), "grad_norm": repr(norm)}
        self._log.write(step, {}, bad_step={**described, "records": names})
        message = f"Step {step} had {problem} ({bad} in a row, training.max_bad_steps is {self._limit}); the parameters"
        if bad >= self._limit:
            raise UserError(
                f"{message} are those before it. Its records: {', '.join(names)}. Look at them, or lower the learning "
                "rate."
            )
        if is_first_process():
            print(f"{message} are left as they were. Its records are in {METRICS}.", file=sys.stderr, flush=True)
