"""Trains a recipe: python -m experiments.train --config=configs/NAME.py --workdir=DIR. The same command resumes."""

from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from experiments import cli

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps its config, metrics and checkpoints.")


def main() -> None:
    """Config -> data -> fit."""
    config, workdir = cli.required(CONFIG), Path(cli.required(WORKDIR))
    train(config, workdir)


def train(config, workdir: Path, *, through: Callable[[Iterator], Iterator] = iter) -> None:
    """Runs (or goes on with) the training of `config` in `workdir`; batches go `through` what measures them, say."""
    from contextjax.optim import make_optimizer, make_schedule
    from contextjax.sharding import batch_parts, make_mesh, process_slice
    from contextjax.training.loop import fit
    from contextjax.variants import make_model
    from data_pipelines.loader import batches
    from experiments import assembly
    from experiments.data import load_data

    mesh = make_mesh(config.mesh)
    micro_batches = config.training.micro_batches
    process, processes = process_slice(mesh, config.data.batch_size, micro_batches=micro_batches)
    with config.unlocked():
        config.model = assembly.resolve_model(config)  # config.json holds every size, whatever a variant means one day
    data = load_data(config, config.data.train_split, cache_mb=config.data.cache_mb)
    cli.write_config(workdir, config)
    tokenizer = assembly.make_tokenizer(config, workdir, data)
    model = make_model(config.model, vocabulary=tokenizer.vocabulary if config.data.vocabulary else None)
    groups = max(batch_parts(mesh), processes) * micro_batches
    samples = assembly.make_samples(config, data, tokenizer, workdir, groups=groups)
    steps = config.training.steps
    phases = assembly.parts(config).make_phases(config, model)
    fit(
        config=assembly.fit_config(config),
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
                process=process,
                processes=processes,
                workers=config.data.workers,
            )
        ),
        workdir=workdir,
        seed=config.seed,
        start_from=assembly.make_start(config),
        diagnose=getattr(phases[-1].objective, "diagnose", None),
        evaluate=assembly.make_evaluate(config, model, tokenizer),
        name_records=lambda rows: [data.records[row].id for row in rows.ravel()],
    )


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
