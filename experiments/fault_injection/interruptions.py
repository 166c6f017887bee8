"""Interrupts a run again and again at random moments: nothing that was reported safe may be lost.

The same command restarts an interrupted run until it is finished; its result must equal that of the uninterrupted run
bit for bit. If a run finishes before it was interrupted often enough, another one follows.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.training.metrics_log import METRICS
from experiments.fault_injection.outcome import Outcome
from experiments.fault_injection.processes import is_running
from experiments.fault_injection.workdirs import differences, last_logged, leftovers, resume_state, safe_step

POLL = 0.01  # seconds
STARTS = 0.25  # share of the interruptions that fall into a start, before its first step
FAR = 6  # the others come after so many steps of a start, at most,
LATER = 0.2  # and so many seconds: within a save, say
GRACE = 30  # seconds in which a process that is asked to end has to
STOPPED = 128 + signal.SIGTERM  # its exit code where it has saved

Start = Callable[[Path], BaseProcess]  # starts the training in a workdir; called again, it goes on there
Inject = Callable[[BaseProcess, Path, np.random.Generator], list[str]]  # returns what went wrong with the run


class Attempt:
    """One start of a run. Until it has rewritten the log, the log is that of an earlier start."""

    def __init__(self, start: Start, workdir: Path):
        self._workdir, self._before, self._begin = workdir, self._inode(workdir), time.monotonic()
        self.process, self.seconds = start(workdir), 0.0

    @staticmethod
    def _inode(workdir: Path) -> int:
        return (workdir / METRICS).stat().st_ino if (workdir / METRICS).exists() else 0

    @property
    def step(self) -> int:
        """The last step of this start's log; 0: it has none yet."""
        if self._inode(self._workdir) == self._before:
            return 0
        self.seconds = self.seconds or time.monotonic() - self._begin  # that a start takes
        return last_logged(self._workdir)

    def wait(self, rng: np.random.Generator, seconds: float) -> bool:
        """Waits for a random moment, where a start takes so many `seconds`; False: the run has ended before it."""
        if seconds and not self.step and rng.random() < STARTS:
            return is_running(self.process, rng.uniform(0, seconds))
        begin, far = 0, int(rng.integers(1, FAR + 1))
        while is_running(self.process, POLL) and (not begin or self.step < begin + far):
            begin = begin or self.step
        return is_running(self.process, rng.uniform(0, LATER))


def interrupt(
    case: str, start: Start, workdir: Path, reference: Path, *, times: int, inject: Inject, seed: int = 0
) -> Outcome:
    """Interrupts a run `times` times.

    Args:
      case: its name, in the outcome.
      start: see `Start`.
      workdir: where the run lives; what is there is removed first.
      reference: the workdir of the uninterrupted run, which logs every step.
      times: how often it is interrupted.
      inject: what is done to the run. If it lives on after that, it goes on.
      seed: of the moments.
    """
    run = _InterruptedRun(start, workdir, reference, inject, times=times, seed=seed)
    while run.done < times and not run.problems:
        run.to_its_end()
    note = f"{run.ended} starts ended with an error" if run.ended else ""
    return Outcome(case, run.done, run.lost, run.corrupt, run.problems, note=note)


class _InterruptedRun:
    """Counts, over all starts of a run that is interrupted, what was lost."""

    def __init__(self, start: Start, workdir: Path, reference: Path, inject: Inject, *, times: int, seed: int):
        self._start, self._workdir, self._reference, self._inject = start, workdir, reference, inject
        self._times, self._rng, self._last = times, np.random.default_rng(seed), safe_step(reference)
        self.done = self.lost = self.corrupt = 0
        self.ended = 0  # starts that ended by themselves, with an error
        self.problems: list[str] = []
        self._safe = 0  # the newest step that was reported safe
        self._seconds = 0.0  # that the last start took

    def to_its_end(self) -> None:
        """Makes a run from its first step to its last."""
        shutil.rmtree(self._workdir, ignore_errors=True)
        self._safe = failures = 0
        while safe_step(self._workdir) < self._last and not self.problems:
            before, code = self.done, self._one_start()
            self.lost += resume_state(self._workdir)[0] < self._safe
            failures = failures + 1 if self.done == before else 0
            if failures == 3:  # in a row, without a fault
                self.problems.append(f"the run ended with exit code {code}, and so did its next starts")
                return
        CheckpointWriter(self._workdir / "checkpoints").close()  # removes what is left, as the next start would
        different = differences(self._workdir, self._reference)
        self.corrupt += bool(different)
        self.problems += [*different, *(f"{name} was left over" for name in leftovers(self._workdir))]

    def _one_start(self) -> int | None:
        """Starts the run, and injects faults until it ends; returns its exit code."""
        attempt = Attempt(self._start, self._workdir)
        process = attempt.process
        while is_running(process):
            if self.done == self._times:
                process.join()
            elif attempt.wait(self._rng, self._seconds):
                self._safe, self.done = max(self._safe, safe_step(self._workdir)), self.done + 1
                step = attempt.step
                self.problems += self._inject(process, self._workdir, self._rng)
                if process.exitcode == -signal.SIGTERM and step and attempt.step < self._last:
                    self.problems.append(f"SIGTERM ended the run after step {attempt.step}, and nothing was saved")
            self._seconds = attempt.seconds or self._seconds
        self.ended += bool(process.exitcode and process.exitcode > 0 and process.exitcode != STOPPED)
        self._safe = max(self._safe, safe_step(self._workdir))
        return process.exitcode


def kill(process: BaseProcess, workdir: Path, rng: np.random.Generator) -> list[str]:
    """Ends the run by kill -9."""
    process.kill()
    process.join()
    return []


def terminate(process: BaseProcess, workdir: Path, rng: np.random.Generator) -> list[str]:
    """Sends SIGTERM, as a scheduler does before it takes a machine away: the run has to save and end in time."""
    assert process.pid
    os.kill(process.pid, signal.SIGTERM)
    if is_running(process, GRACE):
        kill(process, workdir, rng)
        return [f"the run was still there {GRACE} seconds after SIGTERM"]
    code, problems = process.exitcode, []
    if code not in (0, STOPPED, -signal.SIGTERM):  # through already; saved; not yet at its steps
        problems.append(f"SIGTERM ended the run with exit code {code}")
    if code == STOPPED and (logged := last_logged(workdir)) != (saved := safe_step(workdir)):
        problems.append(f"the run was asked to end after step {logged}, and {saved} is saved")
    return problems
