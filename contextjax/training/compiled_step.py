"""The compiled training step of each phase."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import optax

from contextjax.sharding import batch_parts
from contextjax.training.micro_batches import in_micro_batches
from contextjax.training.step import Objective, train_step
from contextjax.training.task import FitConfig, Phase, Task
from contextjax.types import TrainState, UserError


def compile_phases(
    config: FitConfig, task: Task, state: TrainState, batch: Any, *, shardings: Any, mesh: Any
) -> dict[int, Any]:
    """Compiles the step of every phase that is still to come; returns the programs by their phases' first steps."""
    current = phase_at(task.phases, int(state.step))
    return {
        phase.start: trace_step(
            phase.objective, state, batch, shardings=shardings, mesh=mesh, optimizer=task.optimizer,
            frozen=config.frozen, micro_batches=config.micro_batches, spike_factor=config.spike_factor,
            first_step=phase.start,
        ).lower().compile()
        for phase in task.phases if phase.start >= current
    }  # fmt: skip


def phase_at(phases: Sequence[Phase], step: int) -> int:
    """Returns the first step of the phase that makes an update of a state at `step`."""
    return max(phase.start for phase in phases if phase.start <= step)


def trace_step(
    objective: Objective, state: TrainState, batch: Any, *, shardings: Any, mesh: Any,
    optimizer: optax.GradientTransformation, frozen: Sequence[str] = (), micro_batches: int = 1,
    spike_factor: float = 0.0, first_step: int = 0,
) -> Any:  # fmt: skip
    """Traces the step as `fit` compiles it, of arrays or of shapes with shardings: `.lower().compile()` follows.

    Raises:
      UserError: several micro-batches, of an objective that compares rows while it represents them.
    """
    step = functools.partial(
        train_step, objective=objective, optimizer=optimizer, frozen=frozen, spike_factor=spike_factor,
        first_step=first_step,
    )  # fmt: skip
    if micro_batches > 1:
        if not objective.is_rowwise:
            names = ", ".join(dict(objective.weights))
            raise UserError(
                f"training.micro_batches is {micro_batches}, but one of {names} draws or scores within the whole "
                "batch; set it to 1."
            )
        step = functools.partial(step, differentiate=functools.partial(in_micro_batches, parts=batch_parts(mesh)))
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None)).trace(state, batch)
