"""The state that a run begins with: the newest checkpoint's, or a fresh one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.lora import digest, join, split
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
      UserError: the newest checkpoint is one of another config, of other data, or of adapters of another base.
    """
    init = functools.partial(init_state, task.init_params, task.optimizer, task.seed)
    if checkpoints.latest is not None and not config.has_base:
        abstract, shardings = abstract_state(init, mesh)  # a fresh state would be a second one on the devices
        return _restore(checkpoints, abstract, config), shardings
    state, shardings = init_sharded(init, mesh)
    if task.start_from is not None:
        state = state._replace(params=task.start_from(state.params))
    if checkpoints.latest is not None:
        on = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        base = split(state.params, config.frozen)[1]
        restored = _restore(checkpoints, jax.tree.map(on, kept(state, config)), with_base(config, state))
        state = restored._replace(params=join(restored.params, base))
    return state, shardings


def kept(state: TrainState, config: FitConfig) -> TrainState:
    """Returns the part of a state that its checkpoint holds: all but the base of adapters."""
    return state._replace(params=split(state.params, config.frozen)[0]) if config.has_base else state


def with_base(config: FitConfig, state: TrainState) -> FitConfig:
    """Returns the config with the digest of the base in what is kept of it in every checkpoint."""
    if not config.has_base:
        return config
    base = digest(split(state.params, config.frozen)[1])
    return dataclasses.replace(config, meta={**config.meta, "lora": {**config.meta["lora"], "base": base}})


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
    then, now = (each.get("lora", {}) for each in (meta, config.meta))
    if then.get("base") != now.get("base"):
        raise UserError(
            f"The adapters of the checkpoint at step {meta['step']} were trained on the parameters of "
            f"{then['start'] or then['pretrained']} with the digest {then['base']}, and those there have {now['base']} "
            "now; give another --workdir, or put that base back."
        )
    return state
