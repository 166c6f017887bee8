"""The progress of a run, on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from contextjax.sharding import is_first_process


class Progress:
    """Shows a bar on a terminal, and a plain line every twenty seconds elsewhere."""

    def __init__(self, *, start: int, steps: int):
        self._bar, self._shows = None, is_first_process()
        self._steps, self._start, self._begin, self._last = steps, start, time.monotonic(), 0.0
        if sys.stderr.isatty() and self._shows:
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows that `step` steps are done; `values` are the newest metrics."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{values[name]:.3f}" for name in ("loss",) if name in values}, refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._shows and (time.monotonic() - self._last > 20 or step == self._steps):
            self._last = time.monotonic()
            rate = (step - self._start) / max(time.monotonic() - self._begin, 1e-9)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"step {step}/{self._steps}, {rate:.2f} steps/s: {shown}", flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
