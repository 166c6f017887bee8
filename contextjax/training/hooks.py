"""What goes on beside the steps: metrics lines, a progress bar, the watch over sick and stuck steps, a trace."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.files import is_remote, write_whole
from contextjax.sharding import is_first_process, rows_of_all
from contextjax.types import UserError

METRICS = "metrics.jsonl"
SYNC_SECONDS = 30  # a log in an object store is at most so far behind
STUCK = 75  # exit code of a process that its watchdog has ended
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


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
            found.append(json.loads(line))
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


class CompileCounter:
    """Counts XLA compilations of this process, so that recompiles are seen rather than assumed away."""

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
        """What is compiled in this block does not count."""
        before = CompileCounter._total
        yield
        self._expected += CompileCounter._total - before


class BadStepWatch:
    """Tells of sick steps, and ends the run after `limit` in a row, without ever waiting for the newest step."""

    def __init__(
        self, limit: int, name_records: Callable[[np.ndarray], Sequence[str]], log: Callable[[int, dict], None]
    ):
        """`log` takes the step and what is known of it."""
        self._limit, self._name_records, self._log = limit, name_records, log
        self._previous: tuple[int, Any, np.ndarray] | None = None

    def add(self, step: int, metrics: Mapping[str, Any], records: np.ndarray) -> None:
        """A step has been started."""
        self._previous = (step, metrics, records)

    def check_previous(self) -> None:
        """Waits for the step that was added last, and logs it where it is sick.

        Raises:
          UserError: it was the last of too many.
        """
        if self._previous is None:
            return
        step, metrics, records = self._previous
        self._previous = None
        if not (bad := int(metrics["bad_steps"])):
            return
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        what = (
            f"a gradient norm of {norm:.3g}, far above those before it"
            if is_finite
            else "a non-finite loss or gradient"
        )
        names = list(self._name_records(rows_of_all(records)))
        self._log(step, {"kind": "spike" if is_finite else "not finite", "loss": repr(loss), "grad_norm": repr(norm),
                         "records": names})  # fmt: skip
        told = f"Step {step} had {what} ({bad} in a row, training.max_bad_steps is {self._limit}); the parameters are"
        if bad >= self._limit:
            raise UserError(
                f"{told} those before it. Its records: {', '.join(names)}. Look at them, or lower the learning rate."
            )
        if is_first_process():
            print(f"{told} left as they were. Its records are in {METRICS}.", file=sys.stderr, flush=True)


class Watchdog:
    """Ends a process in which no step has finished for `timeout` seconds, after the stacks of its threads.

    A step that waits for another process, which is stuck, would wait for ever; so would the first batch of a loader
    that hangs. Until `step_done` is first called, and in `paused` blocks, anything may take its time. 0 seconds:
    nothing is watched.
    """

    def __init__(self, timeout: float):
        self._timeout, self._last, self._paused, self._ended = timeout, math.inf, 0, threading.Event()
        if timeout:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def step_done(self) -> None:
        """A step has been done, or the first batch is about to be read."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in this block may take its time: an evaluation, a checkpoint."""
        self._paused += 1
        try:
            yield
        finally:
            if self._last < math.inf:
                self._last = time.monotonic()
            self._paused -= 1

    def close(self) -> None:
        """Nothing is watched any more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._timeout / 4)):
            if not self._paused and time.monotonic() - self._last > self._timeout:
                print(
                    f"error: No step has been done for {self._timeout:g} seconds (--step_timeout); this process waits "
                    "for another one, or its loader hangs. Where its threads are:",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                faulthandler.dump_traceback(2)  # standard error, whatever sys.stderr is
                os._exit(STUCK)


class StepProfile:
    """Records a trace of some steps, numbered from 1, for xprof or TensorBoard; whole: the device is waited for.

    A run that begins within them records those that are left.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        """`steps` are the first and the last; None: nothing is recorded."""
        self._folder, self._steps, self._records = folder, steps, False

    @contextlib.contextmanager
    def step(self, number: int, before: Any) -> Iterator[list[Any]]:
        """The block starts step `number` on the state `before`, and puts what it gives into the list."""
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
    """The steps of "100:105", both included; None of "".

    Raises:
      UserError: that is no such range, or not within a run of `steps`.
    """
    if not text:
        return None
    found = re.fullmatch(r"([0-9]+):([0-9]+)", text, re.ASCII)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last <= steps:
        raise UserError(
            f"--profile is '{text}'; expected the first and the last step to record, as 100:105, from 1 to {steps}."
        )
    return first, last
