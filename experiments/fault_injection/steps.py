"""Steps that are sick, and steps that do not come: the first are left out and told, the second end the process."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.checkpoints.reader import CheckpointReader
from contextjax.training.metrics_log import read_metrics
from contextjax.training.watchdog import STUCK
from experiments.fault_injection.rows import Row
from experiments.fault_injection.workdirs import different_arrays

STALL = 120  # seconds that a stream hangs; then it ends, and so does a run that nothing has ended


def poisoned(batches: Iterator[Any], sick: Collection[int], rows: list[np.ndarray]) -> Iterator[Any]:
    """Batches with float32 pictures, NaN in those whose number (from 1) is one of `sick`. `rows` gets their records."""
    for number, batch in enumerate(batches, 1):
        rows.append(np.asarray(batch.records))
        put = lambda x, is_sick=number in sick: np.full_like(x, np.nan, np.float32) if is_sick else np.float32(x)
        yield jax.tree.map(lambda x, put=put: put(x) if x.dtype in (np.uint8, np.float32) else x, batch)


def hanging(batches: Iterator[Any], after: int) -> Iterator[Any]:
    """Passes on so many batches, then hangs."""
    for _ in range(after):
        yield next(batches)
    time.sleep(STALL)


def sick_steps(train: Callable[[Path, Collection[int]], list[np.ndarray]], workdir: Path, *, steps: int) -> Row:
    """Gives a run two sick batches, the last of them in its last step.

    Args:
      train: trains in a workdir with those batches poisoned, and returns the records of all; it saves and logs each of
        its steps, and bears that many sick ones.
      workdir: where.
      steps: of the run; at least four.
    """
    sick = (2, steps)
    rows, problems = train(workdir, sick), []
    with contextlib.closing(CheckpointReader(workdir / "checkpoints")) as checkpoints:
        before, after = (checkpoints.restore_arrays(step)[0] for step in (steps - 1, steps))
    moved = [name for part in ("params", "opt_state") for name in different_arrays(after[part], before[part])]
    problems += [f"{name} after a sick step" for name in moved]
    if int(after["step"]) != steps:
        problems.append(f"the run is at step {int(after['step'])}, not {steps}")
    lines = read_metrics(workdir)
    told = {line["step"]: line["bad_step"]["records"] for line in lines if "bad_step" in line}
    if {step: len(ids) for step, ids in told.items()} != {step: rows[step - 1].size for step in sick}:
        problems.append(f"the log tells the records of the sick steps {list(told)}, expected those of {list(sick)}")
    finite = [line["step"] for line in lines if "loss" in line and math.isfinite(line["loss"])]
    if finite != [step for step in range(1, steps + 1) if step not in sick]:
        problems.append(f"the steps {finite} of {steps} have a loss; expected all but {list(sick)}")
    return Row("sick steps (NaN)", len(sick), 0, len(moved), problems)


def stalls(ends: Collection[tuple[int, str]]) -> Row:
    """Of runs whose loader hung: their exit codes, and what they said."""
    problems = []
    for code, said in ends:
        if code != STUCK:
            problems.append(f"a run whose loader hung has ended with exit code {code}, expected {STUCK}")
        if "most recent call first" not in said or f"in {hanging.__name__}" not in said:
            problems.append("a run whose loader hung has not told where its threads were")
    return Row("a loader that hangs", len(ends), problems=problems)
