"""Checks that bad steps are skipped and reported, and that a run whose steps hang is ended."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from contextjax.checkpoints.reader import CheckpointReader
from contextjax.training.metrics_log import read_metrics
from contextjax.training.watchdog import STUCK
from experiments.fault_injection.children import hang
from experiments.fault_injection.outcome import Outcome
from experiments.fault_injection.workdirs import different_arrays


def check_bad_steps(
    train: Callable[[Path, Collection[int]], list[np.ndarray]], workdir: Path, *, steps: int
) -> Outcome:
    """Gives a run NaN in the batches of two steps, of which one is its last.

    Args:
      train: trains in a workdir with those batches spoilt, and returns the records of all; it saves and logs each of
        its steps, and bears that many bad ones.
      workdir: the folder of the run.
      steps: number of steps; at least four.
    """
    bad = (2, steps)
    records, problems = train(workdir, bad), []
    with contextlib.closing(CheckpointReader(workdir / "checkpoints")) as checkpoints:
        before, after = (checkpoints.restore_arrays(step)[0] for step in (steps - 1, steps))
    moved = [name for field in ("params", "opt_state") for name in different_arrays(after[field], before[field])]
    problems += [f"{name} after a bad step" for name in moved]
    if int(after["step"]) != steps:
        problems.append(f"the run is at step {int(after['step'])}, not {steps}")
    lines = read_metrics(workdir)
    reported = {line["step"]: len(line["bad_step"]["records"]) for line in lines if "bad_step" in line}
    if reported != {step: records[step - 1].size for step in bad}:
        problems.append(f"the log has the records of the bad steps {list(reported)}, expected those of {list(bad)}")
    finite = [line["step"] for line in lines if "loss" in line and math.isfinite(line["loss"])]
    if finite != [step for step in range(1, steps + 1) if step not in bad]:
        problems.append(f"the steps {finite} of {steps} have a loss; expected all but {list(bad)}")
    return Outcome("bad steps (NaN)", len(bad), 0, len(moved), problems)


def check_stalls(ends: Collection[tuple[int | None, str]]) -> Outcome:
    """Checks the exit codes, and what was printed, of runs whose loader hung."""
    problems = []
    for code, printed in ends:
        if code != STUCK:
            problems.append(f"a run whose loader hung has ended with exit code {code}, expected {STUCK}")
        if "most recent call first" not in printed or f"in {hang.__name__}" not in printed:
            problems.append("a run whose loader hung has not shown where its threads were")
    return Outcome("a loader that hangs", len(ends), problems=problems)
