"""One benchmark run in this process, as a record."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from contextjax.analysis.roofline import matmul_rate
from experiments.benchmarks import results, runs


def recorded_run(recipe: Any, *, mode: str, data: str, steps: int, began: float, **about: Any) -> dict[str, Any]:
    """Runs the benchmark once, between two timings of a large matrix product; returns its record.

    Args:
      recipe: the config of the run.
      mode: "training", "embedding" or "evaluation".
      data: "synthetic" or "real".
      steps: that count; 0: the time to the first step alone.
      began: time.perf_counter() when the process began.
      **about: further entries of the record.
    """
    rates = [matmul_rate(recipe.model.dtype)] if steps else []
    options = {"steps": steps, "real": data == "real"}
    if mode == "training":
        with tempfile.TemporaryDirectory() as workdir:
            timing = runs.training(recipe, workdir=Path(workdir), **options)
    else:
        timing = {"embedding": runs.embedding, "evaluation": runs.evaluation}[mode](recipe, **options)
    rates += [matmul_rate(recipe.model.dtype)] if steps else []
    about |= {
        "mode": mode, "data": data, "variant": recipe.model.variant, "batch": recipe.data.batch_size,
        "dtype": recipe.model.dtype, "mesh": recipe.mesh,
    }  # fmt: skip
    return results.record(timing, about, began=began, roof=max(rates, default=None), dtype=recipe.model.dtype)
