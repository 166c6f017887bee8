"""Trains a recipe of several stages, each from the checkpoint of the one before; the same command continues.

python -m experiments.stages --config=configs/context_blip.py --workdir=DIR [--stages=1,2a,2b] [--start=RUN]

Each stage is `experiments.train --config=FILE:STAGE` in DIR/STAGE. What evaluates, searches and reports takes the last.
"""

import sys

from absl import flags

from contextjax.files import path_of
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

CONFIG = define_path("config", Place.FILE, "The recipe's file, whose STAGES names its stages.")
ARGUMENT = flags.DEFINE_string("argument", "", "Further arguments of the recipe, for every stage.")
STAGES = flags.DEFINE_list(
    "stages", None, "The stages to train, in order; default: those of the recipe with its arguments."
)
WORKDIR = define_path("workdir", Place.NEW_FOLDER, "Where the stages' workdirs go.")
START = define_path("start", Place.FOLDER, "The run that the first stage starts from.", default="")
SET = flags.DEFINE_multi_string(
    "set", [], "A setting of every stage, --set=seed=1, or of one, --set=2a:training.steps=9."
)


def main() -> None:
    """Trains the stages in order; if one fails, ends with its exit code (its error is printed already)."""
    from experiments.shared.stage_runs import train_stages

    recipe, workdir = cli.required(CONFIG), path_of(cli.required(WORKDIR))
    sys.exit(
        train_stages(
            recipe, workdir, stages=STAGES.value, argument=ARGUMENT.value, start=START.value, settings=SET.value
        )
    )


if __name__ == "__main__":
    cli.run(main)
