"""One run, interrupted again and again at random moments: nothing that was reported safe may be gone.

An interrupted run is started again, by the same command, until it is through: it must then be the uninterrupted one,
bit for bit. A run that is through before it was interrupted often enough is followed by another one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.training.metrics_log import METRICS, read_metrics
from experiments.fault_injection.rows import Row
from experiments.fault_injection.workdirs import acknowledged, differences, leftovers, taken

POLL = 0.01  # seconds
STARTS = 0.25  # share of the interruptions that fall into a start, before its first step
FAR = 6  # the others come after so many steps of a start, at most,
LATER = 0.2  # and so many seconds: within a save, say
GRACE = 30  # seconds in which a process that is told to end has to
STOPPED = 128 + signal.SIGTERM  # its exit code where it has saved


class Run(Protocol):
    """A training command that is running: a subprocess.Popen."""

    pid: int

    def poll(self) -> int | None:
        """The exit code; None: it is running."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended; subprocess.TimeoutExpired where that is later."""
        ...


Start = Callable[[Path], Run]  # starts the training in a workdir; called again, it goes on there
Disturb = Callable[[Run, Path, np.random.Generator], list[str]]  # returns what went wrong with it


class Attempt:
    """A start of the run. Of the log it writes the lines that it keeps anew: until then they are of the one before."""

    def __init__(self, start: Start, workdir: Path):
        self._log = workdir / METRICS
        self._before, self._begin = self._file, time.monotonic()
        self.run, self.seconds = start(workdir), 0.0

    @property
    def _file(self) -> int:
        return self._log.stat().st_ino if self._log.exists() else 0

    @property
    def step(self) -> int:
        """The last step of the log; 0: the start is not through."""
        if self._file == self._before:
            return 0
        self.seconds = self.seconds or time.monotonic() - self._begin  # that a start takes
        return max((line["step"] for line in read_metrics(self._log.parent)[-1:]), default=0)

    def wait(self, rng: np.random.Generator, seconds: float) -> bool:
        """Waits for a random moment, where a start takes so many `seconds`; False: the run has ended before it."""
        if seconds and not self.step and rng.random() < STARTS:
            return pause(self.run, rng.uniform(0, seconds))
        begin, far = 0, int(rng.integers(1, FAR + 1))
        while self.run.poll() is None and (not begin or self.step < begin + far):
            begin = begin or self.step
            time.sleep(POLL)
        return pause(self.run, rng.uniform(0, LATER))


class Interruptions:
    """What is known of a run that is interrupted, over all its starts."""

    def __init__(self, start: Start, workdir: Path, reference: Path, disturb: Disturb, *, times: int, seed: int):
        self._start, self._workdir, self._reference, self._disturb = start, workdir, reference, disturb
        self._times, self._rng, self._last = times, np.random.default_rng(seed), acknowledged(reference)
        self.done = self.lost = self.corrupt = 0
        self.ended = 0  # starts that ended by themselves, with an error
        self.problems: list[str] = []
        self._seconds = 0.0  # that the last start took

    def one_run(self) -> None:
        """A run from its first step to its last."""
        shutil.rmtree(self._workdir, ignore_errors=True)
        safe, failures = 0, 0
        while acknowledged(self._workdir) < self._last and not self.problems:
            before = self.done
            code, safe = self._one_start(safe)
            step, _ = taken(self._workdir)
            self.lost += step < safe
            failures = failures + 1 if self.done == before else 0
            if failures == 3:  # by itself, in a row
                self.problems.append(f"the run ended with exit code {code}, and so did its next starts")
                return
        CheckpointWriter(self._workdir / "checkpoints").close()  # clears up what is left, as the next start would
        different = differences(self._workdir, self._reference)
        self.corrupt += bool(different)
        self.problems += [*different, *(f"{name} was left over" for name in leftovers(self._workdir))]

    def _one_start(self, safe: int) -> tuple[int | None, int]:
        """(exit code of a start, the newest step that was reported safe)."""
        attempt = Attempt(self._start, self._workdir)
        while attempt.run.poll() is None:
            if self.done < self._times and attempt.wait(self._rng, self._seconds):
                safe, self.done = max(safe, acknowledged(self._workdir)), self.done + 1
                step = attempt.step
                self.problems += self._disturb(attempt.run, self._workdir, self._rng)
                if attempt.run.poll() == -signal.SIGTERM and step and attempt.step < self._last:
                    self.problems.append(
                        f"SIGTERM ended the run after step {attempt.step}, and nothing was saved for it"
                    )
            elif self.done == self._times:
                attempt.run.wait()
            self._seconds = attempt.seconds or self._seconds
        code = attempt.run.poll()
        self.ended += bool(code and code > 0 and code != STOPPED)
        return code, max(safe, acknowledged(self._workdir))


def interrupt(
    drill: str, start: Start, workdir: Path, reference: Path, *, times: int, disturb: Disturb, seed: int = 0
) -> Row:
    """Interrupts a run `times` times.

    Args:
      drill: its name, in the row.
      start: see `Start`.
      workdir: where the run lives; what is there is removed first.
      reference: the workdir of the uninterrupted run, which logs every step.
      times: how often it is interrupted.
      disturb: what is done to the run. If it lives on after that, it goes on.
      seed: of the moments.
    """
    found = Interruptions(start, workdir, reference, disturb, times=times, seed=seed)
    while found.done < times and not found.problems:
        found.one_run()
    note = f"{found.ended} starts ended with an error" if found.ended else ""
    return Row(drill, found.done, found.lost, found.corrupt, found.problems, note=note)


def pause(run: Run, seconds: float) -> bool:
    """Waits so long, or until the run has ended; returns whether it goes on."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(seconds)
    return run.poll() is None


def killed(run: Run, workdir: Path, rng: np.random.Generator) -> list[str]:
    """kill -9."""
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    return []


def terminated(run: Run, workdir: Path, rng: np.random.Generator) -> list[str]:
    """SIGTERM, as a machine that is taken away sends it: the run has to save what it has made, and to end in time."""
    os.kill(run.pid, signal.SIGTERM)
    if pause(run, GRACE):
        killed(run, workdir, rng)
        return [f"the run was still there {GRACE} seconds after SIGTERM"]
    code, problems = run.poll(), []
    if code not in (0, STOPPED, -signal.SIGTERM):  # through already; saved; not yet at its steps
        problems.append(f"SIGTERM ended the run with exit code {code}")
    logged = max((line["step"] for line in read_metrics(workdir)[-1:]), default=0)
    if code == STOPPED and logged != (saved := acknowledged(workdir)):
        problems.append(f"the run was told to end after step {logged}, and {saved} is saved")
    return problems
