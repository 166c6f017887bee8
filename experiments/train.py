"""Trains a recipe: python -m experiments.train --config=configs/NAME.py --workdir=DIR. The same command resumes."""

from absl import flags

from contextjax.files import path_of
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

CONFIG = cli.define_config()
WORKDIR = define_path("workdir", Place.NEW_FOLDER, "Where the run keeps its config, metrics and checkpoints.")
STEP_TIMEOUT = flags.DEFINE_float(
    "step_timeout", 1800, "Seconds without a step after which the process ends; 0: never.", lower_bound=0
)
PROFILE = flags.DEFINE_string("profile", "", "Steps to record in WORKDIR/profile, as 100:105; view with xprof.")
TRACK = flags.DEFINE_list("track", [], "Trackers beside metrics.jsonl and TensorBoard: wandb, mlflow, or both.")
PROCESS_TIMEOUT = cli.define_process_timeout()
KEEPS_MEMORY = True


def main() -> None:
    """Trains, by itself or as one of several processes."""
    cli.distributed(train, timeout=PROCESS_TIMEOUT.value)


def train() -> None:
    """Trains the recipe that the flags name, or goes on with its training."""
    from contextjax.training.goodput import process_began
    from experiments.shared import training

    config, workdir, began = cli.required(CONFIG), path_of(cli.required(WORKDIR)), process_began()
    options = {"step_timeout": STEP_TIMEOUT.value, "profile": PROFILE.value, "track": TRACK.value}
    training.train(config, workdir, began=began, **options)


if __name__ == "__main__":
    cli.run(main)
