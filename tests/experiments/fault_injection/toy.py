"""A training that starts in a moment: python -m tests.experiments.fault_injection.toy WORKDIR."""

import dataclasses
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from contextjax.training.loop import fit
from contextjax.training.task import Callbacks, FitConfig, Phase, Task
from contextjax.types import Stopped
from tests.training.loop_test import Batch, Distance

STEPS, PAUSE = 12, 0.1  # seconds before a batch, so that there is something to interrupt
CONFIG = FitConfig(
    workdir=Path(), steps=STEPS, log_every=1, checkpoint_every=2, evaluate_every=100, max_bad_steps=2, diagnose_every=0,
    best={"w": 1.0}, mesh="data:-1", frozen=(), meta={"config_hash": "abc"},
)  # fmt: skip


def batches(start, *, pause=0.0, shift=0):
    """Eight samples a step, all of them once in 12 steps."""
    for step in range(start, STEPS):
        time.sleep(pause)
        rows = 8 * (step + shift) + np.arange(8)
        yield Batch(np.full(8, 1 + 0.1 * step, np.float32), rows)


def train(workdir, through=iter, **options):
    task = Task(
        init_params=lambda key: {"w": jnp.float32(0.0), "large": jnp.zeros(1000)},
        optimizer=optax.adam(0.1),
        schedule=optax.constant_schedule(0.1),
        phases=[Phase(0, Distance())],
        batches=lambda start: through(batches(start, **options)),
        seed=0,
    )
    callbacks = Callbacks(evaluate=lambda params: {"w": float(params["w"])})
    return fit(dataclasses.replace(CONFIG, workdir=Path(workdir)), task, callbacks)


if __name__ == "__main__":
    try:
        train(sys.argv[1], pause=PAUSE)
    except Stopped:
        sys.exit(143)
