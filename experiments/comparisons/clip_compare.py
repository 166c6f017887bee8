"""Rows of the comparison: same weights, same inputs, outputs compared, then timed in turn."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.analysis.roofline import matmul
from contextjax.pretrained import read_pretrained
from contextjax.types import UserError
from experiments.comparisons import clip_jax, clip_torch, measure

OPTIMIZER = {"learning_rate": 1e-5, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2}
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of outputs and losses; bfloat16 keeps 8 bits
MATMUL = 2048


def about(threads: int) -> dict[str, str]:
    """What was compared, on what."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "torch", "transformers")}
    return {
        "cpu": measure.cpu_model(),
        "threads": str(threads),
        "versions": ", ".join([f"python {platform.python_version()}", *(f"{k} {v}" for k, v in versions.items())]),
        "pytorch": clip_torch.DESCRIPTION,
        "flops": "2 x multiply-adds of all matrix products; a step is 3 x forward, less the gradient by the pixels",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    }


def compare(folder: Path, wanted: Sequence[tuple[str, int, str]], *, pairs: int, seconds: float) -> list[measure.Row]:
    """One Row for each (name, batch, dtype)."""
    clip_torch.write_checkpoint(folder)
    rows = []
    for name, batch, dtype in wanted:
        rows.append(_row(folder, name, batch, dtype, pairs, seconds))
        print(measure.table(rows[-1:]).splitlines()[-1], flush=True)
        gc.collect()  # a step keeps gigabytes
    return rows


def _row(folder: Path, name: str, batch: int, dtype: str, pairs: int, seconds: float) -> measure.Row:
    config = read_pretrained(folder).model.config
    rng = np.random.default_rng(0)
    size, length = config.vision.image_size, config.text.positions
    images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    normalised = ((images / 255 - config.vision.mean) / config.vision.std).astype(np.float32)
    if name == "forward":
        programs = [clip_jax.forward(folder, images, dtype), clip_torch.forward(folder, normalised, dtype)]
        flops = batch * measure.image_flops(config.vision, config.projection)
        outputs = [program() for program in programs]
    else:
        ids = rng.integers(1, config.text.eos_token, (batch, length), np.int32)
        ids[:, -1] = config.text.eos_token
        programs = [
            clip_jax.step(folder, images, ids, dtype, OPTIMIZER),
            clip_torch.step(folder, normalised, ids, dtype, OPTIMIZER),
        ]
        flops = measure.step_flops(config, batch, length=length)
        # The loss before and after an update: the gradients and the optimizers are compared too.
        outputs = [np.asarray([program(), program()]) for program in programs]
    difference = float(np.abs(outputs[0] - outputs[1]).max())
    if not difference <= TOLERANCE[dtype]:
        raise UserError(
            f"{name}, batch {batch}, {dtype}: outputs differ by {difference:.2g}; expected {TOLERANCE[dtype]:g} at "
            "most: the two don't compute the same, so their times can't be compared."
        )
    ours, theirs, roof = measure.rounds([*programs, matmul(MATMUL, dtype)], pairs, seconds=seconds)
    rates = [2 * MATMUL**3 / t for t in roof]
    return measure.Row(name, batch, dtype, flops, difference, ours, theirs, rates)


def write(path: Path, about: dict[str, Any], rows: Sequence[measure.Row]) -> None:
    """A JSON file: what was compared, and each row's summary and timings."""
    found = {**about, "rows": [dataclasses.asdict(row) | row.summary() for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
