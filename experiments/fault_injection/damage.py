"""One byte is flipped, a file is cut, or is gone: every time it has to be noticed, whichever file it is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contextjax.checkpoints import integrity as checksums
from experiments.fault_injection.rows import Row
from experiments.fault_injection.workdirs import taken

RESTORES = 4  # of so many, one is a whole restore, too


def damage(workdir: Path, scratch: Path, *, times: int, seed: int = 0) -> Row:
    """Damages the newest of a run's checkpoints, in a copy in `scratch`, which is removed first.

    Every file is flipped, cut and removed at least once. Each damage must be found by the checks of its files; and of
    every fourth, a restore must take the checkpoint before it. The run needs two checkpoints.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(workdir / "checkpoints", scratch / "checkpoints")
    newest, older = sorted(int(p.name) for p in (scratch / "checkpoints").iterdir() if p.name.isdigit())[::-1][:2]
    folder = scratch / "checkpoints" / str(newest)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rng, problems = np.random.default_rng(seed), []
    if said := checksums.damage(folder):
        problems.append(f"the checkpoint was damaged before: {said}")
    for number in range(max(times, 3 * len(files))):
        file, kind = files[number % len(files)], ("flip", "cut", "removal")[number // len(files) % 3]
        with _damaged(file, kind, rng) as what:
            name = f"{what} of {file.relative_to(folder)}"
            if not checksums.damage(folder):
                problems.append(f"{name} was not noticed")
            elif number % RESTORES == 0 and (step := taken(scratch)[0]) != older:
                problems.append(f"after {name}, a restore took {step} instead of {older}")
    if said := checksums.damage(folder):
        problems.append(f"the checkpoint is not what it was: {said}")
    return Row(f"flips, cuts, removals over {len(files)} files", number + 1, 0, len(problems), problems)


@contextlib.contextmanager
def _damaged(file: Path, kind: str, rng: np.random.Generator) -> Iterator[str]:
    """Damages a file and mends it; an empty one can only grow or go."""
    data = bytearray(file.read_bytes())
    place = int(rng.integers(max(len(data), 1)))
    what = f"{kind} at {place} of {len(data)} bytes"
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
        yield what
    finally:
        file.write_bytes(data)
