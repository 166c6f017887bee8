"""The state that a run begins with: the newest checkpoint's, or a fresh one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.sharding import abstract_state, init_sharded
from contextjax.training.task import FitConfig, Task
from contextjax.types import TrainState, UserError


def init_state(init_params: Callable, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Returns a fresh state, its parameters boxed with logical axes as `init_params` gives them."""
    key = jax.random.PRNGKey(seed)
    params = init_params(key)
    return TrainState.fresh(params, optimizer.init(params), jax.random.fold_in(key, 1))


def first_state(checkpoints: CheckpointWriter, task: Task, config: FitConfig, mesh: Any) -> tuple[TrainState, Any]:
    """Returns the state to go on from, and its shardings.

    Raises:
      UserError: the newest checkpoint is one of another config, or of other data.
    """
    init = functools.partial(init_state, task.init_params, task.optimizer, task.seed)
    if checkpoints.latest is not None:
        abstract, shardings = abstract_state(init, mesh)  # a fresh state would be a second one on the devices
        return _restore(checkpoints, abstract, config), shardings
    state, shardings = init_sharded(init, mesh)
    if task.start_from is not None:
        state = state._replace(params=task.start_from(state.params))
    return state, shardings


def _restore(checkpoints: CheckpointWriter, abstract: TrainState, config: FitConfig) -> TrainState:
    state, meta = checkpoints.restore(abstract)
    if meta["config_hash"] != config.meta["config_hash"]:
        raise UserError(
            f"The checkpoint at step {meta['step']} is of config {meta['config_hash']}, this run's is "
            f"{config.meta['config_hash']}; give another --workdir or the config it was trained with."
        )
    if meta.get("data") != config.meta.get("data"):
        raise UserError(
            f"The training data are not those that the checkpoint at step {meta['step']} was trained on "
            f"({meta.get('data')} then, {config.meta.get('data')} now); give another --workdir, or those data."
        )
    return state
