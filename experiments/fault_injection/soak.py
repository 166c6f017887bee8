"""Checks that the memory of a long run does not grow, and that nothing is compiled again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from contextjax.training.metrics_log import read_metrics
from experiments.fault_injection.interruptions import Attempt, Start
from experiments.fault_injection.outcome import Outcome
from experiments.fault_injection.processes import is_running

EVERY = 0.5  # seconds between two looks at the memory
WARM = 0.25  # share of the steps before memory counts
SLOPE = 1.0  # MB a minute between saves, at most
SAVE = 3.0  # MB a save, at most


def check_soak(case: str, start: Start, workdir: Path, *, steps: int, every: int = 0) -> Outcome:
    """Watches a run of `steps` that logs every step and has to begin here, in an empty workdir. On Linux.

    It saves after `every` steps (0: never). Growth by a minute is measured between saves, and growth by a save by
    itself, for saves are as rare as one likes. The slope over all, saves included, is in the note.
    """
    attempt, seen = Attempt(start, workdir), []
    while is_running(attempt.process, EVERY):
        memory = _megabytes(attempt.process.pid)
        if memory and WARM * steps < (step := attempt.step) < steps:  # the evaluation after the last is no step
            seen.append((time.monotonic(), memory, step))
    lines, problems = read_metrics(workdir), []
    if attempt.process.exitcode or not lines or lines[-1]["step"] != steps:
        problems.append(f"the run is not through (exit code {attempt.process.exitcode})")
    recompiles = max((line["recompiles"] for line in lines if "recompiles" in line), default=0)
    if recompiles:
        problems.append(f"{recompiles:g} programs were compiled after the first step")
    if len(seen) < 10:
        return Outcome(case, steps, problems=[*problems, "the run is too short to see its memory grow"])
    rows = np.asarray(seen)
    slope, saves = growth(rows, every or steps)
    if slope >= SLOPE:
        problems.append(f"memory grows by {slope:.2f} MB a minute")
    if saves > SAVE:
        problems.append(f"memory grows by {saves:.2f} MB a save")
    watched, over_all = rows[-1, 0] - rows[0, 0], _slope(rows[:, :2] - rows[:, :2].mean(axis=0))
    note = f"{slope:+.2f} MB a minute between saves, {over_all:+.2f} over all, {watched:.0f} s watched, "
    note += f"{saves:+.2f} MB a save, {recompiles:g} recompiles"
    return Outcome(case, steps, problems=problems, note=note)


def growth(rows: np.ndarray, every: int) -> tuple[float, float]:
    """Returns MB a minute between saves, and MB a save, of rows of (seconds, MB, step).

    The first tenth of the steps after a save belongs to the save.
    """
    kept = rows[(rows[:, 2] % every >= 0.1 * every) | (rows[:, 2] < every)]
    saves = kept[:, 2] // every
    between = [each for save in np.unique(saves) if len(each := kept[saves == save]) > 2]
    if not between:
        return 0.0, 0.0
    moved = np.concatenate([each[:, :2] - each[:, :2].mean(axis=0) for each in between])
    levels = [float(np.median(each[:, 1])) for each in between]
    return _slope(moved), (levels[-1] - levels[0]) / max(len(levels) - 1, 1)


def _slope(moved: np.ndarray) -> float:
    """Returns MB a minute, of rows of (seconds, MB) about their mean."""
    return float((moved[:, 0] @ moved[:, 1]) / (moved[:, 0] @ moved[:, 0])) * 60


def _megabytes(pid: int | None) -> float:
    """Returns the resident memory of a process; 0: it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
