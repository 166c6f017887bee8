"""Runs a command in several processes of this machine, which are one run: training, evaluation.

python -m experiments.launch --processes=4 -- experiments.train --config=configs/NAME.py --workdir=DIR

Their lines begin with the process's number. When one fails, the others are ended, and its exit code is this command's.
"""

import sys
from collections.abc import Sequence

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli
from experiments.shared.local_processes import run_together

PROCESSES = flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=1)
GPUS = flags.DEFINE_bool("gpus", False, "Give each process a GPU of its own, by CUDA_VISIBLE_DEVICES.")
TAKES_ARGUMENTS = True  # the command to run, and its flags


def main(command: Sequence[str]) -> None:
    """Starts the processes, and waits for them."""
    if not command:
        raise UserError("There is no command; give it after two dashes, as -- experiments.train --workdir=DIR.")
    sys.exit(run_together([sys.executable, "-m", *command], processes=PROCESSES.value, gpus=GPUS.value))


if __name__ == "__main__":
    cli.run(main)
