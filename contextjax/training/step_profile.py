"""A trace of some steps, for xprof or TensorBoard."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from contextjax.types import UserError


class StepProfile:
    """Records a trace of a range of steps, numbered from 1, for xprof or TensorBoard, until the device has finished
    them.

    A run that begins within the range records the rest of it.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        """Takes the first and the last of the `steps` to record; None: nothing is recorded."""
        self._folder, self._steps, self._records = folder, steps, False

    @contextlib.contextmanager
    def step(self, number: int, before: Any) -> Iterator[list[Any]]:
        """Wraps the start of step `number` on the state `before`; the block puts the step's results into the list."""
        first, last = self._steps or (0, 0)
        if not first <= number <= last:
            yield []
            return
        if not self._records:
            jax.block_until_ready(before)
            jax.profiler.start_trace(str(self._folder))
            self._records = True
        after: list[Any] = []
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield after
        if number == last:
            jax.block_until_ready(after)
            self.close()

    def close(self) -> None:
        """Ends a trace that is being recorded."""
        if self._records:
            self._records = False
            jax.profiler.stop_trace()


def parse_steps(text: str, *, steps: int) -> tuple[int, int] | None:
    """Returns the first and the last step of "100:105"; None of "".

    Raises:
      UserError: that is no such range, or not within a run of `steps`.
    """
    if not text:
        return None
    match = re.fullmatch(r"([0-9]+):([0-9]+)", text, re.ASCII)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last <= steps:
        raise UserError(
            f"--profile is '{text}'; expected the first and the last step to record, as 100:105, from 1 to {steps}."
        )
    return first, last
