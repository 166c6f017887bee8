"""What a drill reads of a workdir: what is safe, what is left over, and whether two runs are one."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.checkpoints import integrity as checksums
from contextjax.checkpoints.reader import CheckpointReader
from contextjax.checkpoints.writer import UNFINISHED
from contextjax.training.metrics_log import METRICS, read_metrics
from contextjax.types import UserError


def acknowledged(workdir: Path) -> int:
    """The newest step whose checkpoint has been reported safe, by its checksums; 0: none."""
    reports = (workdir / "checkpoints").glob(f"*/{checksums.NAME}")
    return max((int(path.parent.name) for path in reports if path.parent.name.isdigit()), default=0)


def taken(workdir: Path) -> tuple[int, Any]:
    """(step, state) of the checkpoint that the next start goes on from, as it reads it; (0, None): it starts anew."""
    if not acknowledged(workdir):
        return 0, None
    with (
        contextlib.redirect_stderr(io.StringIO()),  # of those that are damaged, on purpose
        contextlib.closing(CheckpointReader(workdir / "checkpoints")) as checkpoints,
    ):
        try:
            state, meta = checkpoints.restore_arrays("newest")
        except UserError:  # all of them are damaged
            return 0, None
    return meta["step"], state


def lines_of(workdir: Path) -> list[dict[str, Any]]:
    """The metrics lines, without what a clock says."""
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in read_metrics(workdir)]


def differences(workdir: Path, reference: Path) -> list[str]:
    """In what two finished runs are not the same, bit for bit; empty: in nothing."""
    found = []
    lines, expected = lines_of(workdir), lines_of(reference)
    if lines != expected:
        step = next((b["step"] for a, b in zip(lines, expected, strict=False) if a != b), "the end")
        found.append(f"{METRICS} differs from step {step} on ({len(lines)} and {len(expected)} lines)")
    (step, state), (expected_step, expected_state) = taken(workdir), taken(reference)
    if step != expected_step:
        return [*found, f"the last checkpoint is of step {step}, expected {expected_step}"]
    return found + different_arrays(state, expected_state)


def different_arrays(tree: Any, expected: Any) -> list[str]:
    """Which arrays of two trees are not the same, bit for bit."""
    if jax.tree.structure(tree) != jax.tree.structure(expected):
        return ["its arrays are others"]
    found = []
    for (path, a), (_, b) in zip(*map(jax.tree.leaves_with_path, (tree, expected)), strict=True):
        if np.asarray(a).dtype != np.asarray(b).dtype or np.asarray(a).tobytes() != np.asarray(b).tobytes():
            found.append(f"{jax.tree_util.keystr(path)} differs")
    return found


def leftovers(workdir: Path) -> list[str]:
    """Names of what an interruption has left and nothing has cleared away."""
    of_saves = [path for path in (workdir / "checkpoints").glob("*") if not (path / checksums.NAME).exists()]
    files = [path for path in workdir.rglob("*") if path.name.endswith(".partial") or UNFINISHED in path.name]
    return sorted({str(path.relative_to(workdir)) for path in (*of_saves, *files)})
