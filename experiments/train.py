"""Trains a recipe: python -m experiments.train --config=configs/NAME.py --workdir=DIR. The same command resumes."""

from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from contextjax.files import is_remote, path_of
from contextjax.types import UserError
from experiments.shared import cli

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps its config, metrics and checkpoints.")
STEP_TIMEOUT = flags.DEFINE_float(
    "step_timeout", 1800, "Seconds without a step after which the process ends; 0: never.", lower_bound=0
)
PROFILE = flags.DEFINE_string("profile", "", "Steps to record in WORKDIR/profile, as 100:105; view with xprof.")
PROCESS_TIMEOUT = cli.define_process_timeout()


def main() -> None:
    """Config -> data -> fit."""
    from contextjax.training.ledger import Ledger, process_age

    config, workdir = cli.required(CONFIG), path_of(cli.required(WORKDIR))
    ledger = Ledger(before=process_age())
    train(config, workdir, step_timeout=STEP_TIMEOUT.value, profile=PROFILE.value, ledger=ledger)


def train(
    config,
    workdir: Path,
    *,
    through: Callable[[Iterator], Iterator] = iter,
    step_timeout: float = 0,
    profile: str = "",
    ledger=None,
):
    """Runs (or goes on with) the training of `config` in `workdir`; batches go `through` what measures them, say.

    The time of the run counts from where `ledger` began; without one, from where `fit` does.

    Returns the state after the last step.
    """
    from contextjax.optim import make_optimizer, make_schedule
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
    from contextjax.variants import make_model
    from data_pipelines.loader import batches
    from experiments.shared import assembly
    from experiments.shared.data import data_hash, load_data

    if profile and is_remote(workdir):
        raise UserError(f"--profile needs a workdir on this machine, and {workdir} is none; give another --workdir.")
    recorded = parse_steps(profile, steps=config.training.steps)
    mesh = make_mesh(config.mesh)
    micro_batches = config.training.micro_batches
    check_batch(mesh, config.data.batch_size, micro_batches=micro_batches)
    rows = process_rows(mesh, config.data.batch_size)
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
    cuts = batch_parts(mesh) * micro_batches
    samples = assembly.make_samples(config, data, tokenizer, workdir, cuts=cuts)
    steps = config.training.steps
    phases = assembly.parts(config).make_phases(config, model)
    return fit(
        config=assembly.fit_config(config, data=data_hash(data), step_timeout=step_timeout),
        init_params=assembly.make_init(model),
        optimizer=make_optimizer(config.optimizer, steps=steps),
        schedule=make_schedule(config.optimizer, steps=steps),
        phases=phases,
        batches=lambda start: through(
            batches(
                samples,
                batch_size=config.data.batch_size,
                steps=steps,
                seed=config.seed,
                start=start,
                rows=rows,
                workers=config.data.workers,
            )
        ),
        workdir=workdir,
        seed=config.seed,
        start_from=assembly.make_start(config),
        diagnose=getattr(phases[-1].objective, "diagnose", None),
        evaluate=assembly.make_evaluate(config, model, tokenizer),
        name_records=lambda rows: [data.records[row].id for row in rows.ravel()],
        profile=recorded,
        ledger=ledger,
    )


if __name__ == "__main__":
    cli.run(main)
