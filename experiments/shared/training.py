"""A training run: from a config to the state after its last step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contextjax.files import is_remote
from contextjax.sharding import (
    batch_parts,
    check_batch,
    first_process_first,
    is_first_process,
    make_mesh,
    process_rows,
)
from contextjax.training.loop import fit
from contextjax.training.step_profile import parse_steps
from contextjax.training.task import Callbacks
from contextjax.types import TrainState, UserError
from contextjax.variants import make_model
from data_pipelines.loader import batches
from experiments.shared import assembly, cli
from experiments.shared.data import data_hash, load_data


def train(
    config: Any,
    workdir: Path,
    *,
    through: Callable[[Iterator], Iterator] = iter,
    step_timeout: float = 0,
    profile: str = "",
    began: float | None = None,
) -> TrainState:
    """Trains a recipe in `workdir`, or goes on with the training that is there.

    Args:
      config: the recipe.
      workdir: where its config, metrics and checkpoints go.
      through: is given the stream of batches, and returns the one that is trained on; it may measure it, or end it.
      step_timeout: seconds without a step after which the process ends; 0: never.
      profile: the steps to record, see parse_steps.
      began: the moment (time.monotonic) from which the run's time counts; None: from now on.

    Returns:
      the state after the last step.

    Raises:
      UserError: settings or data that do not fit; and see `fit`.
    """
    if profile and is_remote(workdir):
        raise UserError(f"--profile needs a workdir on this machine, and {workdir} is none; give another --workdir.")
    steps, batch_size, micro_batches = config.training.steps, config.data.batch_size, config.training.micro_batches
    recorded = parse_steps(profile, steps=steps)
    mesh = make_mesh(config.mesh)
    check_batch(mesh, batch_size, micro_batches=micro_batches)
    rows = process_rows(mesh, batch_size)
    with config.unlocked():
        config.model = assembly.resolve_model(config)  # config.json holds every size, whatever a variant means one day
    with first_process_first():
        data = load_data(config, config.data.train_split, cache_mb=config.data.cache_mb)
        cli.write_config(workdir, config)
        tokenizer = assembly.make_tokenizer(config, workdir, data)
    spec = assembly.make_spec(config, vocabulary=tokenizer.vocabulary if config.data.vocabulary else None)
    if is_first_process():
        spec.write(workdir)
    model = make_model(spec)
    samples = assembly.make_samples(config, data, tokenizer, workdir, cuts=batch_parts(mesh) * micro_batches)
    options = {"batch_size": batch_size, "steps": steps, "seed": config.seed, "rows": rows}
    task = assembly.make_task(
        config, model, lambda start: through(batches(samples, start=start, workers=config.data.workers, **options))
    )
    return fit(
        assembly.fit_config(
            config, workdir, data=data_hash(data), step_timeout=step_timeout, profile=recorded, began=began
        ),
        task,
        Callbacks(
            diagnose=getattr(task.phases[-1].objective, "diagnose", None),
            evaluate=assembly.make_evaluate(config, model, tokenizer),
            name_records=lambda rows: [data.records[row].id for row in rows.ravel()],
        ),
    )
