"""Training steps of contextjax as programs to be timed."""

from __future__ import annotations

import functools
from typing import Any

import jax

from contextjax.training.step import train_step
from contextjax.types import TrainState


def make_update(objective: Any, optimizer: Any, *, frozen: tuple[str, ...] = ()) -> Any:
    """Returns `train_step` of an objective and optimizer: state, batch -> state, metrics."""
    return functools.partial(train_step, objective=objective, optimizer=optimizer, frozen=frozen)


def compile_update(update: Any, state: Any, batch: Any) -> Any:
    """Returns the compiled step; `state` may be shapes alone."""
    return jax.jit(update, donate_argnums=0).lower(state, batch).compile()


def cost_of_compiled(compiled: Any) -> dict[str, float]:
    """Returns the FLOPs that XLA counts in a compiled program, and the bytes of its temporaries."""
    memory = compiled.memory_analysis()
    return {"flops": float(compiled.cost_analysis()["flops"]), "bytes": float(memory.temp_size_in_bytes)}


class Training:
    """A training state that several compiled steps update in turn."""

    def __init__(self, params: Any, optimizer: Any, *, seed: int = 0):
        """Begins with fresh optimizer moments; the steps overwrite `params`."""
        self.state = TrainState.fresh(params, optimizer.init(params), jax.random.key(seed))

    def update(self, compiled: Any, batch: Any) -> dict[str, float]:
        """Runs one step (see `compile_update`) and returns its metrics, among them "loss" and "grad_norm"."""
        self.state, metrics = compiled(self.state, batch)
        return {name: float(value) for name, value in metrics.items()}
