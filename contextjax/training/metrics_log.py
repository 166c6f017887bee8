"""The metrics of a run: lines of metrics.jsonl, and the same for TensorBoard and other writers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from contextjax.files import is_remote, write_whole
from contextjax.json_files import read_lines, set_aside_lines
from contextjax.sharding import is_first_process
from contextjax.training.goodput import SYNC_SECONDS, Goodput
from contextjax.training.tensorboard import TensorBoardWriter

METRICS = "metrics.jsonl"


class MetricWriter(Protocol):
    """A place that metrics are written to, such as TensorBoard or an experiment tracker."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step; a step may come more than once, with other names."""
        ...

    def close(self) -> None:
        """Writes what is left, and ends."""
        ...


class MetricsLog:
    """Writes metrics.jsonl, one object a line: step, name: value, seconds of training (without compile and evaluation).

    Lines past `step` are cut on opening: a resumed run writes them again. TensorBoard and `writers` get the same
    values. Of several processes the first writes. What can't be written (the disk is full) is reported once, and
    written when it can be.
    """

    def __init__(self, workdir: Path, goodput: Goodput, *, step: int, writers: Sequence[MetricWriter] = ()):
        self._writes, self.is_remote, self._goodput = is_first_process(), is_remote(workdir), goodput
        self._unwritten, self._has_complained = b"", False
        if not self._writes:
            return
        lines, damaged = read_lines(workdir / METRICS, _is_sound, allow_nan=True)
        kept = [line for line in lines if line["step"] <= step]
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0
        self._workdir, self._synced = workdir, time.monotonic()
        set_aside_lines(workdir / METRICS, damaged)
        # An object can't be added to: both logs of such a workdir are kept here, and go there whole now and then.
        self._here = Path(tempfile.mkdtemp(prefix="contextjax-")) if self.is_remote else workdir
        for folder in {self._here, workdir}:
            write_whole(folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept), is_kept=True)
        self._file = (self._here / METRICS).open("ab", buffering=0)
        self._writers = [TensorBoardWriter(self._here / "tensorboard", first=step + 1), *writers]

    def write(self, step: int, values: Mapping[str, float], **more: Any) -> None:
        """Adds one line; `more` are values that are no numbers, which only the file gets."""
        if not self._writes:
            return
        values = {name: float(value) for name, value in values.items()}
        seconds = round(self._seconds_before + self._goodput.trained, 3)
        self._unwritten += (json.dumps({"step": step, **values, **more, "seconds": seconds}) + "\n").encode()
        self._flush()
        for writer in self._writers:
            writer.write(step, values)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def _flush(self) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._has_complained:
            message = f"{self._workdir / METRICS} can't be written ({error}); training goes on, its lines are kept."
            with contextlib.suppress(OSError):
                print(message, file=sys.stderr, flush=True)
        self._has_complained = True

    def sync(self) -> None:
        """Writes what is left to the disk, or to the object store that the workdir is in; what fails is tried again."""
        if not self._writes:
            return
        self._flush()
        self._synced = time.monotonic()
        try:
            os.fsync(self._file.fileno())
            for path in (self._here / METRICS, *(self._here / "tensorboard").iterdir()) if self.is_remote else ():
                write_whole(self._workdir / path.relative_to(self._here), path.read_bytes())
        except Exception as error:  # stores have errors of their own
            self._complain(error)

    def close(self) -> None:
        """Closes the file and the writers."""
        if not self._writes:
            return
        for writer in self._writers:
            writer.close()
        self.sync()
        self._file.close()  # unbuffered, so nothing is lost


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a workdir's metrics.jsonl, without damaged ones, whose number is printed."""
    lines, damaged = read_lines(workdir / METRICS, _is_sound, allow_nan=True)
    if count := damaged.count(b"\n"):
        print(f"{workdir / METRICS}: {count} damaged line{'s' * (count > 1)} left out.", file=sys.stderr, flush=True)
    return lines


def _is_sound(line: Any) -> bool:
    return isinstance(line, dict) and type(line.get("step")) is int and type(line.get("seconds")) in (int, float)
