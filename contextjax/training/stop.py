"""The request to stop a run: all its processes stop after the same step, which is saved."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Any

from contextjax.sharding import stop_after

_runs = itertools.count()  # the same in every process


class StopRequest:
    """Listens for SIGTERM while it is entered; `is_due` says when to stop. Further signals change nothing.

    Schedulers send it some time before they take a machine away. One of several processes receiving it is enough.
    """

    def __init__(self) -> None:
        self._name, self._is_asked, self._before = str(next(_runs)), False, None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python handles signals there only
            self._before: Any = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @property
    def is_asked(self) -> bool:
        """True if this process has been asked to end."""
        return self._is_asked

    def is_due(self, step: int) -> bool:
        """Returns whether to stop after `step`, which has been started; call it after every step."""
        last = stop_after(self._name, step, is_asked=self._is_asked)
        return last is not None and step >= last

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self._is_asked:
            os.write(2, b"Asked to stop: the current step is finished and saved first.\n")  # print isn't reentrant
        self._is_asked = True
