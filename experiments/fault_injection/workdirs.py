"""Reads which steps of a workdir are safe and which files are left over, and compares two runs."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.checkpoints import integrity
from contextjax.checkpoints.reader import CheckpointReader
from contextjax.checkpoints.writer import UNFINISHED
from contextjax.training.metrics_log import METRICS, read_metrics
from contextjax.types import UserError


def safe_step(workdir: Path) -> int:
    """Returns the newest step whose checkpoint was reported safe, by its checksums; 0: none."""
    reports = (workdir / "checkpoints").glob(f"*/{integrity.NAME}")
    return max((int(path.parent.name) for path in reports if path.parent.name.isdigit()), default=0)


def last_logged(workdir: Path) -> int:
    """Returns the step of the last metrics line; 0: there is none."""
    return max((line["step"] for line in read_metrics(workdir)[-1:]), default=0)


def resume_state(workdir: Path) -> tuple[int, Any]:
    """Returns step and state of the checkpoint that the next start takes; (0, None): it starts from the beginning."""
    if not safe_step(workdir):
        return 0, None
    with (
        contextlib.redirect_stderr(io.StringIO()),  # the message about those that were damaged on purpose
        contextlib.closing(CheckpointReader(workdir / "checkpoints")) as checkpoints,
    ):
        try:
            state, meta = checkpoints.restore_arrays("newest")
        except UserError:  # all of them are damaged
            return 0, None
    return meta["step"], state


def differences(workdir: Path, reference: Path) -> list[str]:
    """Returns in what two finished runs are not the same, bit for bit; times of a clock are left out."""
    problems = []
    lines, expected = (
        [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in read_metrics(place)]
        for place in (workdir, reference)
    )
    if lines != expected:
        step = next((b["step"] for a, b in zip(lines, expected, strict=False) if a != b), "the end")
        problems.append(f"{METRICS} differs from step {step} on ({len(lines)} and {len(expected)} lines)")
    (step, state), (expected_step, expected_state) = resume_state(workdir), resume_state(reference)
    if step != expected_step:
        return [*problems, f"the last checkpoint is of step {step}, expected {expected_step}"]
    return problems + different_arrays(state, expected_state)


def different_arrays(tree: Any, expected: Any) -> list[str]:
    """Returns which arrays of two trees are not the same, bit for bit."""
    if jax.tree.structure(tree) != jax.tree.structure(expected):
        return ["its arrays are others"]
    pairs = zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(expected), strict=True)
    bits = lambda x: (np.asarray(x).dtype, np.asarray(x).tobytes())
    return [f"{jax.tree_util.keystr(path)} differs" for (path, a), b in pairs if bits(a) != bits(b)]


def leftovers(workdir: Path) -> list[str]:
    """Returns the names of what an interruption left and nothing removed."""
    unsafe = [path for path in (workdir / "checkpoints").glob("*") if not (path / integrity.NAME).exists()]
    files = [path for path in workdir.rglob("*") if path.name.endswith(".partial") or UNFINISHED in path.name]
    return sorted({str(path.relative_to(workdir)) for path in (*unsafe, *files)})
