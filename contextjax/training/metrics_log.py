"""What a run tells while it goes on: lines of metrics, the same for TensorBoard, and a progress bar."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.files import is_remote, write_whole
from contextjax.json_files import parse_json
from contextjax.sharding import is_first_process

METRICS = "metrics.jsonl"
SYNC_SECONDS = 30  # a log in an object store is at most so far behind


class MetricsLog:
    """metrics.jsonl, one object a line: step, name: value, seconds (of training, without compile and evaluation).

    Lines past `step` are cut on opening: a resumed run writes them again. TensorBoard gets the same values. Of several
    processes the first writes. What can't be written (the disk is full) is told once, and written when it can be.
    """

    def __init__(self, workdir: Path, *, step: int):
        self._writes, self.seconds, self.is_remote = is_first_process(), 0.0, is_remote(workdir)
        self._unwritten, self._is_told = b"", False
        if not self._writes:
            return
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        self._workdir, self._synced = workdir, time.monotonic()
        # An object can't be added to: both logs of such a workdir are kept here, and go there whole now and then.
        self._here = Path(tempfile.mkdtemp(prefix="contextjax-")) if self.is_remote else workdir
        for folder in {self._here, workdir}:
            write_whole(folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept), is_kept=True)
        self._file = (self._here / METRICS).open("ab", buffering=0)
        self._board = Board(self._here / "tensorboard", first=step + 1)

    def write(self, step: int, values: Mapping[str, float], *, seconds: float, **more: Any) -> None:
        """Adds one line; `more` are values that are no numbers, and not TensorBoard's."""
        if not self._writes:
            return
        values = {name: float(value) for name, value in values.items()}
        self._unwritten += (json.dumps({"step": step, **values, **more, "seconds": round(seconds, 3)}) + "\n").encode()
        self._flush()
        self._board.add(step, values)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def _flush(self) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            told = f"{self._workdir / METRICS} can't be written ({error}); training goes on, its lines are kept."
            with contextlib.suppress(OSError):
                print(told, file=sys.stderr, flush=True)
        self._is_told = True

    def sync(self) -> None:
        """Writes what is left to write: to the disk, or to the object store the workdir is in; what fails, later."""
        if not self._writes:
            return
        self._flush()
        self._synced = time.monotonic()
        try:
            os.fsync(self._file.fileno())
            for path in (self._here / METRICS, *(self._here / "tensorboard").iterdir()) if self.is_remote else ():
                write_whole(self._workdir / path.relative_to(self._here), path.read_bytes())
        except Exception as error:  # stores have errors of their own
            self._tell(error)

    def close(self) -> None:
        """Closes both writers."""
        if not self._writes:
            return
        self._board.close()
        self.sync()
        self._file.close()  # unbuffered: nothing is left in it


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a workdir's metrics.jsonl; a last line cut by an interruption is left out."""
    path = workdir / METRICS
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(parse_json(line, allow_nan=True))
        except ValueError:
            break
    return found


class Board:
    """A TensorBoard file of scalars. It is given up where it can't be written: metrics.jsonl has them all."""

    def __init__(self, folder: Path, *, first: int):
        """What older files have of the step `first` and later ones is not shown any more."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event = Event
        # Its own writer, for tensorboardX's usual one waits for ever for a thread that has met a full disk.
        self._writer: Any = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        self._add(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The values of a step."""
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

    def _do(self, what: str, *given: Any) -> None:
        if self._writer is not None:
            try:
                getattr(self._writer, what)(*given)
            except OSError:
                self._writer = None


class Progress:
    """A bar on a terminal, a plain line every twenty seconds elsewhere."""

    def __init__(self, *, start: int, steps: int):
        self._bar, self._shows = None, is_first_process()
        self._steps, self._start, self._begin, self._last = steps, start, time.monotonic(), 0.0
        if sys.stderr.isatty() and self._shows:
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """`step` steps are done; `values` are the newest metrics."""
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
