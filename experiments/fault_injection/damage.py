"""Damages files of checkpoints (a flipped byte, a cut, a removal), each of which the checks must detect."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contextjax.checkpoints import integrity
from experiments.fault_injection.outcome import Outcome
from experiments.fault_injection.workdirs import resume_state

RESTORES = 4  # one of so many damages is followed by a whole restore, too


def damage_files(workdir: Path, scratch: Path, *, times: int, seed: int = 0) -> Outcome:
    """Damages the newest of a run's checkpoints, of which it needs two, in a copy in `scratch`, which is removed first.

    Every file is flipped, cut and removed at least once. Each damage must be found by the checks of its files, and of
    every fourth, a restore must take the checkpoint before it.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(workdir / "checkpoints", scratch / "checkpoints")
    older, newest = sorted(int(p.name) for p in (scratch / "checkpoints").iterdir() if p.name.isdigit())[-2:]
    folder = scratch / "checkpoints" / str(newest)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rng, problems = np.random.default_rng(seed), []
    if reason := integrity.damage(folder):
        problems.append(f"the checkpoint was damaged before: {reason}")
    times = max(times, 3 * len(files))
    for number in range(times):
        file, kind = files[number % len(files)], ("flip", "cut", "removal")[number // len(files) % 3]
        with _damaged(file, kind, rng) as what:
            name = f"{what} of {file.relative_to(folder)}"
            if not integrity.damage(folder):
                problems.append(f"{name} was not noticed")
            elif number % RESTORES == 0 and (step := resume_state(scratch)[0]) != older:
                problems.append(f"after {name}, a restore took {step} instead of {older}")
    if reason := integrity.damage(folder):
        problems.append(f"the checkpoint is not what it was: {reason}")
    return Outcome(f"flips, cuts, removals over {len(files)} files", times, 0, len(problems), problems)


@contextlib.contextmanager
def _damaged(file: Path, kind: str, rng: np.random.Generator) -> Iterator[str]:
    """Damages a file for the block, which gets a description; an empty file can only grow or go."""
    data = bytearray(file.read_bytes())
    place = int(rng.integers(max(len(data), 1)))
    if kind == "removal":
        file.unlink()
    elif not data:
        file.write_bytes(b"\0")
    elif kind == "cut":
        file.write_bytes(data[:place])
    else:
        flipped = bytearray(data)
        flipped[place] ^= int(rng.integers(1, 256))
        file.write_bytes(flipped)
    try:
        yield f"{kind} at {place} of {len(data)} bytes"
    finally:
        file.write_bytes(data)
