"""A config's training step as shapes alone: nothing is allocated, and no data is needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contextjax.optim import make_optimizer
from contextjax.sharding import abstract_state, activations, batch_parts, check_batch, make_mesh, place_abstract
from contextjax.training.compiled_step import trace_step
from contextjax.training.first_state import init_state
from contextjax.training.task import Phase
from contextjax.types import UserError
from contextjax.variants import make_model, resolve
from experiments.shared import models, systems
from experiments.shared.config_check import check_values


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A config's training step, traced with shapes alone."""

    config: Any  # with the model's sizes
    model: Any
    vocabulary: int
    phase: Phase  # the last one
    mesh: Any
    cuts: int  # into how many the mesh cuts a batch
    fresh: Callable[[], Any]  # -> a fresh state, boxed
    state: Any  # shapes with shardings
    traced: Any  # jax.stages.Traced


def abstract_step(config: Any, *, devices: Sequence[Any] | None = None) -> AbstractStep:
    """Traces the step of the config's last phase for its mesh; nothing is allocated or compiled.

    `devices` are those of the mesh, which need not be of this machine; None: its own.

    Raises:
      UserError: there are no sizes to build the model with, or the mesh or batch does not go together.
    """
    check_values(config)
    config = with_sizes(config)
    vocabulary = config.data.vocabulary or config.model.text["vocabulary"]
    model = make_model(models.make_spec(config, vocabulary=vocabulary))
    optimizer = make_optimizer(config.optimizer, steps=config.training.steps)
    mesh = make_mesh(config.mesh, devices=devices)
    lora = models.lora_of(config)
    phase = systems.make_phases(config, model, lora, mesh)[-1]
    micro_batches = config.training.micro_batches
    check_batch(mesh, config.data.batch_size, micro_batches=micro_batches)
    cuts = batch_parts(mesh) * micro_batches
    fresh = functools.partial(init_state, models.make_init(model, lora), optimizer, config.seed)
    state, shardings = abstract_state(fresh, mesh)
    batch = systems.of(config).abstract_batch(config, cuts=cuts)
    batch = place_abstract(batch, mesh, micro_batches=micro_batches)
    options = {"frozen": tuple(config.optimizer.freeze), "micro_batches": micro_batches, "mesh": mesh}
    with activations(mesh):
        traced = trace_step(phase.objective, state, batch, shardings=shardings, optimizer=optimizer, **options)
    return AbstractStep(config, model, vocabulary, phase, mesh, cuts, fresh, state, traced)


def with_sizes(config: Any) -> Any:
    """Returns a copy of the config whose `model` section has every size, see `sizes_of`."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model = ConfigDict(sizes_of(config))
    return config


def sizes_of(config: Any) -> dict[str, Any]:
    """Returns the config's `model` section with every size: those of a checkpoint's folder, else the variant's.

    Raises:
      UserError: there is neither.
    """
    model = config.model
    if model.pretrained and Path(model.pretrained).is_dir():
        return models.resolve_model(config)
    if not model.variant and "width" not in model.vision:
        raise UserError(
            f"model.pretrained is '{model.pretrained}', no folder on this machine, and model.variant is empty: there "
            "are no sizes to plan with; give a folder, or --config.model.variant=B16."
        )
    return resolve(model)
