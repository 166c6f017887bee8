"""A long run: its memory does not grow, and nothing is compiled again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from contextjax.training.metrics_log import read_metrics
from experiments.fault_injection.interruptions import Attempt, Start
from experiments.fault_injection.rows import Row

EVERY = 0.5  # seconds between two looks at the memory
WARM = 0.25  # share of the steps before memory counts
SLOPE = 1.0  # MB a minute between saves, at most
SAVE = 3.0  # MB a save, at most


def soak(drill: str, start: Start, workdir: Path, *, steps: int, every: int = 0) -> Row:
    """Watches a run of `steps` that logs every step and has to begin here, in an empty workdir. On Linux.

    It saves after `every` steps (0: never): what memory grows by a minute is seen between saves, and what it grows by a
    save by itself, for saves are as rare as one likes. The slope over all, saves included, is told beside it.
    """
    attempt, seen = Attempt(start, workdir), []
    while attempt.run.poll() is None:
        if WARM * steps < (step := attempt.step) < steps:  # what is evaluated after the last is no step
            seen.append((time.monotonic(), _megabytes(attempt.run.pid), step))
        time.sleep(EVERY)
    lines, problems = read_metrics(workdir), []
    if attempt.run.poll() or not lines or lines[-1]["step"] != steps:
        problems.append(f"the run is not through (exit code {attempt.run.poll()})")
    recompiles = max((line["recompiles"] for line in lines if "recompiles" in line), default=0)
    if recompiles:
        problems.append(f"{recompiles:g} programs were compiled after the first step")
    seen = [each for each in seen if each[1]]
    if len(seen) < 10:
        return Row(drill, steps, problems=[*problems, "the run is too short to see its memory grow"])
    slope, saves = _growth(np.asarray(seen), every or steps)
    if slope >= SLOPE:
        problems.append(f"memory grows by {slope:.2f} MB a minute")
    if saves > SAVE:
        problems.append(f"memory grows by {saves:.2f} MB a save")
    watched, plain = seen[-1][0] - seen[0][0], _slope(np.asarray(seen)[:, :2] - np.mean(seen, axis=0)[:2])
    note = f"{slope:+.2f} MB a minute between saves, {plain:+.2f} over all, {watched:.0f} s watched, "
    note += f"{saves:+.2f} MB a save, {recompiles:g} recompiles"
    return Row(drill, steps, problems=problems, note=note)


def _growth(seen: np.ndarray, every: int) -> tuple[float, float]:
    """(MB a minute between saves, MB a save) of rows of time, MB, step; the first tenth after a save is the save's."""
    kept = seen[(seen[:, 2] % every >= 0.1 * every) | (seen[:, 2] < every)]
    parts = [rows for part in np.unique(kept[:, 2] // every) if len(rows := kept[kept[:, 2] // every == part]) > 2]
    if not parts:
        return 0.0, 0.0
    moved = np.concatenate([rows[:, :2] - rows[:, :2].mean(axis=0) for rows in parts])
    levels = [float(np.median(rows[:, 1])) for rows in parts]
    return _slope(moved), (levels[-1] - levels[0]) / max(len(levels) - 1, 1)


def _slope(moved: np.ndarray) -> float:
    """MB a minute of rows of time, MB, each about its mean."""
    return float((moved[:, 0] @ moved[:, 1]) / (moved[:, 0] @ moved[:, 0])) * 60


def _megabytes(pid: int) -> float:
    """Resident memory of a process; 0: it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
