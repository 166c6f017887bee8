"""Checks that a cut and resumed run equals the uninterrupted one: bitwise on its mesh, within rounding on another."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from contextjax.training.metrics_log import read_metrics
from experiments.fault_injection.outcome import Outcome
from experiments.fault_injection.workdirs import differences, safe_step

FIRST = 5  # steps after a resume whose losses are compared on another mesh
CLOSE = 1e-5  # relative

Records = list[np.ndarray]  # those of each batch
Train = Callable[[Path, int], Records]  # goes on in a workdir up to the batch of this number (0: to the end)


def check_resume(
    case: str, train: Train, workdir: Path, reference: Path, records: Records, cuts: Sequence[int], *,
    is_exact: bool = True,
) -> Outcome:  # fmt: skip
    """Cuts a run after so many batches of a start, again and again, and lets it go on to its end.

    Args:
      case: its name, in the outcome.
      train: see `Train`.
      workdir: where the run lives; what is there is removed first.
      reference: the workdir of the uninterrupted run, which logs every step.
      records: of the uninterrupted run's batches.
      cuts: how many batches a start has; one that comes to the end of the run cuts nothing, which is a problem.
      is_exact: on the same mesh all is the same, bit for bit; on others the losses of the first steps are close.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    problems, starts, done = [], [], 0
    for cut in (*cuts, 0):
        start = safe_step(workdir)
        starts.append(start)
        if cut and start + cut >= len(records):
            problems.append(f"{cut} batches after step {start} cut nothing, the run has {len(records)}")
        elif cut:
            done += 1
        seen = train(workdir, cut)
        expected = records[start : start + cut] if cut else records[start:]
        if len(seen) != len(expected) or not all(map(np.array_equal, seen, expected)):
            problems.append(f"the batches after step {start} are not those of the uninterrupted run")
    different = differences(workdir, reference) if is_exact else _far_losses(workdir, reference, starts)
    return Outcome(case, done, 0, int(is_exact and bool(different)), problems + different)


def _far_losses(workdir: Path, reference: Path, starts: Sequence[int]) -> list[str]:
    losses, expected = (
        {line["step"]: line["loss"] for line in read_metrics(place) if "loss" in line} for place in (workdir, reference)
    )
    if losses.keys() != expected.keys():
        return ["the log has other steps"]
    steps = sorted({step for start in starts for step in range(start + 1, start + 1 + FIRST) if step in expected})
    far = [step for step in steps if not abs(losses[step] - expected[step]) <= CLOSE * abs(expected[step])]
    return [f"the loss of step {step} is {losses[step]}, expected {expected[step]} within {CLOSE}" for step in far]
