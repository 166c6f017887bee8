"""A training that starts in a moment, and its `run` for a process of its own."""

import dataclasses
import functools
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from contextjax.training.loop import fit
from contextjax.training.task import Callbacks, FitConfig, Phase, Task
from contextjax.types import Stopped
from experiments.fault_injection.children import Cut, cut_after, recorded
from tests.training.loop_test import Batch, Distance

STEPS, PAUSE = 12, 0.03  # seconds before a batch, so that there is something to interrupt
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


def train(workdir, through=iter, *, checkpoint_every=2, **options) -> list[np.ndarray]:
    """Trains with batches that go `through` a function; returns the records of all batches that were read."""
    records = []
    task = Task(
        init_params=lambda key: {"w": jnp.float32(0.0), "large": jnp.zeros(1000)},
        optimizer=optax.adam(0.1),
        schedule=optax.constant_schedule(0.1),
        phases=[Phase(0, Distance())],
        batches=lambda start: recorded(through(batches(start, **options)), records),
        seed=0,
    )
    config = dataclasses.replace(CONFIG, workdir=Path(workdir), checkpoint_every=checkpoint_every)
    try:
        fit(config, task, Callbacks(evaluate=lambda params: {"w": float(params["w"])}))
    except Cut:
        assert isinstance(through, functools.partial)
    return records


def train_cut(workdir, cut, **options) -> list[np.ndarray]:
    """Trains up to the batch of this number; 0: to the end."""
    return train(workdir, functools.partial(cut_after, count=cut), **options)


def run(workdir) -> None:
    """Trains as the command does: with exit code 143 where it was asked to end."""
    try:
        train(workdir, pause=PAUSE)
    except Stopped as stopped:
        print(stopped, flush=True)
        sys.exit(143)
