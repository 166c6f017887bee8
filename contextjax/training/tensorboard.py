"""A TensorBoard file of scalars."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoardWriter:
    """Writes scalars for TensorBoard. It gives up where the file can't be written: metrics.jsonl has them all."""

    def __init__(self, folder: Path, *, first: int):
        """Hides what older files in `folder` have about the step `first` and later ones."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event = Event
        # Its own writer, for tensorboardX's usual one waits for ever for a thread that has met a full disk.
        self._writer: Any = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._add(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            summary = scalar(name.replace("@", "_at_"), value)  # TensorBoard refuses "@"
            self._add(self._event(step=step, wall_time=time.time(), summary=summary))
        self._do("flush")

    def close(self) -> None:
        """Ends the file."""
        self._do("close")

    def _add(self, event: Any) -> None:
        self._do("write_event", event)

    def _do(self, method: str, *arguments: Any) -> None:
        if self._writer is not None:
            try:
                getattr(self._writer, method)(*arguments)
            except OSError:
                self._writer = None
