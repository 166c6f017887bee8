"""A stage-1 step of ContextBLIP here and in PyTorch: losses and gradient norms compared, then timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextjax.types import UserError
from experiments.comparisons import measure, stage1_case, stage1_jax, stage1_process, stage1_torch

OURS, THEIRS = "contextjax", "PyTorch"
TOLERANCE = 1e-4  # of losses and gradient norms, relative
COMPARED = ("loss", "matching", "masking", "similarity", "grad_norm")
CHECKED_STEPS = 2  # the losses after an update compare the optimizers as well
TARGET = 1.7
NOTES = {
    "pytorch": stage1_torch.DESCRIPTION,
    "here": "train_step; an image's keys and values are projected once for all texts that read it",
    "flops": "here: XLA's count of the compiled program; PyTorch: matrix products by FlopCounterMode",
    "memory": "here: temporaries of the compiled program; PyTorch: most tensors alive beyond those before the step; "
    "resident: the process's peak during a step, weights, libraries and kept free memory included",
}


def compare(folder: Path, *, size: str, batch: int, pairs: int, threads: int) -> dict[str, Any]:
    """{"checked": steps -> name -> (ours, theirs), "steps": library -> costs, seconds, "ratio", "freezing"}.

    Args:
      folder: where random weights are written.
      size: a name of stage1_case.SIZES.
      batch: captions.
      pairs: rounds.
      threads: of each library.

    Raises:
      UserError: losses or gradient norms differ.
    """
    stage1_case.write_weights(folder, size)
    arguments = str(folder), size, batch, threads
    with (
        stage1_process.Process(OURS, stage1_jax.Program, *arguments) as ours,
        stage1_process.Process(THEIRS, stage1_torch.Program, *arguments) as theirs,
    ):
        checked = [check(ours.ask("checked_step"), theirs.ask("checked_step")) for _ in range(CHECKED_STEPS)]
        programs = [lambda: ours.ask("step"), lambda: theirs.ask("step")]
        seconds = measure.rounds(programs, pairs, seconds=0.0)
        steps = {
            name: {"seconds": times, "resident": side.ask("resident"), **side.ask("cost")}
            for name, side, times in zip((OURS, THEIRS), (ours, theirs), seconds, strict=True)
        }
        freezing = ours.ask("freezing")
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    ratio = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "target": TARGET}
    return {"checked": checked, "steps": steps, "ratio": ratio, "freezing": freezing}


def check(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """name -> (ours, theirs) of what both log.

    Raises:
      UserError: they differ by more than TOLERANCE.
    """
    for name in COMPARED:
        if not abs(ours[name] - theirs[name]) <= TOLERANCE * abs(theirs[name]):
            raise UserError(
                f"{name} is {theirs[name]:.7g} in PyTorch, and here {ours[name]:.7g}; expected {TOLERANCE:g} of it "
                "apart at most: the two don't compute the same, so their times can't be compared."
            )
    return {name: (ours[name], theirs[name]) for name in COMPARED}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: a line for each library, their ratio, and what freezing saves."""
    lines = ["| step | seconds (min to max) | TFLOP | memory, GB | resident, GB |", "|---|---|---|---|---|"]
    for name, step in found["steps"].items():
        seconds = step["seconds"]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        sizes = f"{step['bytes'] / 1e9:.2f} | {step['resident'] / 1e9:.2f}"
        lines.append(f"| {name} | {spread} | {step['flops'] / 1e12:.3f} | {sizes} |")
    r, first = found["ratio"], found["checked"][0]
    apart = max(abs(a - b) / abs(b) for step in found["checked"] for a, b in step.values())
    lines += [
        "",
        f"PyTorch's time / ours: {r['median']:.2f}x ({r['min']:.2f} to {r['max']:.2f}); the target is {r['target']}x.",
        f"Losses and gradient norms of {len(found['checked'])} steps differ by {apart:.1e} at most; in the first: "
        + ", ".join(f"{name} {a:.6g} and {b:.6g}" for name, (a, b) in first.items()),
        "",
        "| our step | TFLOP | temporaries, GB | parameters and moments, GB |",
        "|---|---|---|---|",
    ]
    for name, cost in found["freezing"].items():
        sizes = f"{cost['bytes'] / 1e9:.2f} | {cost['state_bytes'] / 1e9:.2f}"
        lines.append(f"| {name} | {cost['flops'] / 1e12:.3f} | {sizes} |")
    return "\n".join(lines)
