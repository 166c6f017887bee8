"""A run that is cut and goes on is the uninterrupted one: bit for bit on its mesh, within rounding on another one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.training.metrics_log import read_metrics
from experiments.fault_injection.rows import Row
from experiments.fault_injection.workdirs import acknowledged, differences

FIRST = 5  # steps after a resume whose losses are compared on another mesh
CLOSE = 1e-5  # relative

Rows = list[np.ndarray]  # the records of each batch
Train = Callable[[Path, int], Rows]  # goes on in a workdir up to the batch of this number (0: to the end)


class Cut(Exception):
    """Instead of whatever interrupts a run."""


def cut_after(batches: Iterator[Any], count: int, rows: Rows) -> Iterator[Any]:
    """Passes on `count` batches, then raises Cut (0: never). `rows` gets their records."""
    for number, batch in enumerate(batches):
        if count and number == count:
            raise Cut
        rows.append(np.asarray(batch.records))
        yield batch


def resume(
    drill: str, train: Train, workdir: Path, reference: Path, rows: Rows, cuts: Sequence[int], *, exact: bool = True
) -> Row:
    """Cuts a run after so many batches of a start, again and again, and lets it go on to its end.

    Args:
      drill: its name, in the row.
      train: see `Train`.
      workdir: where the run lives; what is there is removed first.
      reference: the workdir of the uninterrupted run, which logs every step.
      rows: the records of its batches.
      cuts: how many batches a start has; one that comes to the end of the run is no cut, and told.
      exact: on the same mesh: all is the same, bit for bit; on others the losses of the first steps are close.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    problems, starts, done = [], [], 0
    for cut in (*cuts, 0):
        start = acknowledged(workdir)
        starts.append(start)
        done += bool(cut) and start + cut < len(rows)
        if cut and start + cut >= len(rows):
            problems.append(f"{cut} batches after step {start} cut nothing, the run has {len(rows)}")
        seen = train(workdir, cut)
        expected = rows[start : start + cut] if cut else rows[start:]
        if len(seen) != len(expected) or not all(map(np.array_equal, seen, expected)):
            problems.append(f"the batches after step {start} are not those of the uninterrupted run")
    corrupt = 0
    if exact:
        different = differences(workdir, reference)
        corrupt, problems = int(bool(different)), problems + different
    else:
        problems += _far_losses(workdir, reference, starts)
    return Row(drill, done, 0, corrupt, problems)


def _far_losses(workdir: Path, reference: Path, starts: Sequence[int]) -> list[str]:
    found, expected = ({line["step"]: line["loss"] for line in read_metrics(w) if "loss" in line}
                       for w in (workdir, reference))  # fmt: skip
    if found.keys() != expected.keys():
        return ["the log has other steps"]
    steps = {step for start in starts for step in range(start + 1, start + 1 + FIRST) if step in expected}
    far = [s for s in sorted(steps) if not abs(found[s] - expected[s]) <= CLOSE * abs(expected[s])]
    return [f"the loss of step {s} is {found[s]}, expected {expected[s]} within {CLOSE}" for s in far]
