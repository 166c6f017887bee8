"""What the consistency loss adds to a training step, here and in PyTorch: losses compared, then timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.types import UserError
from experiments.comparisons import clip_torch, concepts_jax, concepts_torch, measure

OPTIMIZER = {"learning_rate": 1e-5, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.01}
WEIGHTS = {"contrastive": 1.0, "consistency": 0.08}
LOSSES = {"without": {"contrastive": 1.0}, "with": WEIGHTS}
WITHOUT, TOGETHER, ONE_BY_ONE = "PyTorch, without", "PyTorch, naive, together", "PyTorch, naive, one by one"
TOLERANCE = 1e-4  # of losses
NOTES = {
    "pytorch": concepts_torch.DESCRIPTION,
    "flops": "here: XLA's count of the compiled program; PyTorch: matrix products by FlopCounterMode",
    "memory": "here: temporaries of the compiled program; PyTorch: most tensors alive beyond those before the step",
}


def compare(folder: Path, *, batch: int, phrases: int, pairs: int, naive: Sequence[str]) -> dict[str, Any]:
    """{"steps": name -> loss, flops, bytes, seconds of each round; "ratios": name -> median, least, largest}.

    Args:
      folder: where a CLIP of random weights is written.
      batch: references, with one modification each.
      phrases: of each modification.
      pairs: rounds.
      naive: TOGETHER, ONE_BY_ONE or both: the PyTorch forms that are timed.

    Raises:
      UserError: the losses differ.
    """
    clip_torch.write_checkpoint(folder)
    model, params = concepts_jax.load(folder)
    inputs = concepts_jax.make_batch(model, batch, phrases)
    fusion = {name: jax.tree.map(np.array, tree) for name, tree in params.items() if name != "clip"}
    ours, costs = concepts_jax.make_steps(model, params, inputs, LOSSES, OPTIMIZER)
    passes = {WITHOUT: 0} | {name: {TOGETHER: 1, ONE_BY_ONE: batch * phrases}[name] for name in naive}
    config, heads = model.config.clip, model.config.fusion_heads
    theirs = concepts_torch.make_steps(
        folder, config, fusion, inputs, WEIGHTS, OPTIMIZER, heads=heads, passes=passes
    )  # fmt: skip
    losses = {}
    for name, run in theirs.items():  # the n-th loss is that of the same weights, n - 1 updates old, on both sides
        losses[name] = [ours["with" if passes[name] else "without"](), run()]
        difference = abs(losses[name][0] - losses[name][1])
        if not difference <= TOLERANCE:
            raise UserError(
                f"{name}: the loss is {losses[name][1]:.6f}, and here {losses[name][0]:.6f}; expected {TOLERANCE:g} "
                "apart at most: the two don't compute the same, so their times can't be compared."
            )
    programs = {**ours, **theirs}
    times = dict(zip(programs, measure.rounds(list(programs.values()), pairs, seconds=0.0), strict=True))
    costs |= {name: concepts_torch.cost(run) for name, run in theirs.items()}
    steps = {name: {**costs[name], "seconds": seconds} for name, seconds in times.items()}
    over = {"with / without": ("with", "without")}
    over |= {f"{name} / {WITHOUT}": (name, WITHOUT) for name in naive}
    over |= {f"{name} / with": (name, "with") for name in naive}
    return {"steps": steps, "losses": losses, "ratios": {k: _ratio(times[a], times[b]) for k, (a, b) in over.items()}}


def _ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: a line for each step, then one for each ratio."""
    lines = ["| step | seconds (min to max) | TFLOP | memory, GB |", "|---|---|---|---|"]
    for name, step in found["steps"].items():
        seconds = step["seconds"]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        lines.append(f"| {name} | {spread} | {step['flops'] / 1e12:.3f} | {step['bytes'] / 1e9:.2f} |")
    lines += ["", "| ratio of times | median (min to max) |", "|---|---|"]
    for name, r in found["ratios"].items():
        lines.append(f"| {name} | {r['median']:.2f}x ({r['min']:.2f} to {r['max']:.2f}) |")
    return "\n".join(lines)
