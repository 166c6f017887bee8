"""A training run: from a config to the state after its last step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import contextjax
from contextjax.checkpoints.integrity import digests
from contextjax.files import is_remote
from contextjax.optim import make_optimizer, make_schedule
from contextjax.sharding import (
    batch_parts,
    first_process_first,
    is_first_process,
    make_mesh,
    process_rows,
)
from contextjax.spec import FILE
from contextjax.training.loop import fit
from contextjax.training.step_profile import parse_steps
from contextjax.training.task import Callbacks, FitConfig, Task
from contextjax.types import TrainState, UserError
from contextjax.variants import make_model
from data_pipelines.loader import batches
from experiments.shared import models, systems
from experiments.shared.config_check import check_config
from experiments.shared.data import data_hash, load_data
from experiments.shared.run_config import config_hash, write_config
from experiments.shared.trackers import check_trackers, open_trackers
from experiments.shared.validation import best_rule, make_evaluate, print_left_out

OF_RUN = ("tokenizer.json", FILE)  # in a workdir; a checkpoint is of use with these alone


def train(
    config: Any,
    workdir: Path,
    *,
    through: Callable[[Iterator], Iterator] = iter,
    step_timeout: float = 0,
    profile: str = "",
    track: Sequence[str] = (),
    began: float | None = None,
) -> TrainState:
    """Trains a recipe in `workdir`, or goes on with the training that is there.

    Args:
      config: the recipe.
      workdir: where its config, metrics and checkpoints go.
      through: is given the stream of batches, and returns the one that is trained on; it may measure it, or end it.
      step_timeout: seconds without a step after which the process ends; 0: never.
      profile: the steps to record, see parse_steps.
      track: trackers that the metrics go to, too, see trackers.TRACKERS.
      began: the moment (time.monotonic) from which the run's time counts; None: from now on.

    Returns:
      the state after the last step.

    Raises:
      UserError: settings or data that do not fit; and see `fit`.
    """
    if profile and is_remote(workdir):
        raise UserError(f"--profile needs a workdir on this machine, and {workdir} is none; give another --workdir.")
    check_trackers(track, workdir)
    steps, batch_size, micro_batches = config.training.steps, config.data.batch_size, config.training.micro_batches
    recorded = parse_steps(profile, steps=steps)
    check_config(config)
    print_left_out(config)
    mesh = make_mesh(config.mesh)
    rows = process_rows(mesh, batch_size)
    with first_process_first():
        data = load_data(config, config.data.train_split, cache_mb=config.data.cache_mb)
        write_config(workdir, config)
        tokenizer = models.make_tokenizer(config, workdir, data)
    spec = models.make_spec(config, vocabulary=tokenizer.vocabulary if config.data.vocabulary else None)
    if is_first_process() and not (workdir / FILE).exists():
        spec.write(workdir)
    model = make_model(spec)
    samples = systems.make_samples(config, data, tokenizer, workdir, cuts=batch_parts(mesh) * micro_batches)
    options = {"batch_size": batch_size, "steps": steps, "seed": config.seed, "rows": rows}
    task = make_task(
        config, model, lambda start: through(batches(samples, start=start, workers=config.data.workers, **options))
    )
    evaluate, lora = make_evaluate(config, model, tokenizer), models.lora_of(config)
    merge = jax.jit(lora.merge) if lora else None
    with open_trackers(track, workdir, config) as writers:
        return fit(
            fit_config(config, workdir, data=data_hash(data), step_timeout=step_timeout, profile=recorded, began=began),
            task,
            Callbacks(
                diagnose=getattr(task.phases[-1].objective, "diagnose", None),
                evaluate=(lambda params: evaluate(merge(params))) if evaluate and merge else evaluate,
                name_records=lambda rows: [data.records[row].id for row in rows.ravel()],
                writers=writers,
            ),
        )


def fit_config(config: Any, workdir: Path, *, data: str = "", **options: Any) -> FitConfig:
    """Returns the config's training section with what identifies the run, its hash and that of the `data`.

    `options` are further fields of FitConfig, which the config has not.
    """
    versions = {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint")}
    versions["contextjax"] = contextjax.__version__  # which has no metadata where it is not installed
    meta = {"config_hash": config_hash(config), "data": data, "versions": versions, **models.lora_record(config)}
    meta["files"] = digests(workdir, OF_RUN)
    settings = {**config.training, "best": best_rule(config), "frozen": tuple(config.optimizer.freeze)}
    settings["has_base"] = "lora" in meta
    return FitConfig(workdir=workdir, mesh=config.mesh, meta=meta, **settings, **options)


def make_task(config: Any, model: Any, batches: Callable[[int], Iterator[Any]]) -> Task:
    """Returns what is trained: the config's model, objectives and optimizer on `batches` (first step -> stream)."""
    lora = models.lora_of(config)
    return Task(
        init_params=models.make_init(model, lora),
        optimizer=make_optimizer(config.optimizer, steps=config.training.steps),
        schedule=make_schedule(config.optimizer, steps=config.training.steps),
        phases=systems.make_phases(config, model, lora),
        batches=batches,
        seed=config.seed,
        start_from=models.make_start(config),
    )
