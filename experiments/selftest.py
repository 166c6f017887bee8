"""Injects faults into small runs on this machine (kills, full disks, damaged files), and reports whether data was lost.

python -m experiments.selftest [--workdir=DIR] [--config=configs/NAME.py] [--mesh=data:8] [--long] [--only=kill,cuts]
"""

import sys
import tempfile
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from contextjax.types import UserError
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path(
    "workdir", Place.NEW_FOLDER, "A new folder that keeps what the cases leave; default: it is removed."
)
CONFIG = cli.define_config()
MESH = flags.DEFINE_string("mesh", "", "Where the runs go, as data:8; default: the config's.")
LONG = flags.DEFINE_bool("long", False, "As often as `make test-slow`, with a soak of 20,000 steps.")
ONLY = flags.DEFINE_list(
    "only", [], "Some of damage, kill, sigterm, disk, io, cuts, meshes, bad, stall, soak; default: all."
)


def main() -> None:
    """Runs the cases and prints their table; exit code 1 if a case has a problem."""
    import jax

    from experiments.fault_injection import cases
    from experiments.fault_injection.outcome import table

    with tempfile.TemporaryDirectory(prefix="contextjax-selftest-") as scratch:
        folder = Path(WORKDIR.value or scratch).absolute()
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; give a new folder as --workdir, or none.")
        sizes = cases.LONG if LONG.value else cases.SHORT
        planned = cases.Cases(_recipe(), sizes, folder, mesh=MESH.value)
        jax.config.update("jax_platforms", "cpu")  # this process only compares: the devices are for the runs
        outcomes = []
        for outcome in planned.outcomes(ONLY.value):
            print(f"{outcome.case}: {'pass' if outcome.passed else 'FAIL'}", flush=True)
            outcomes.append(outcome)
        print(f"\n{table(outcomes)}")
    sys.exit(0 if all(outcome.passed for outcome in outcomes) else 1)


def _recipe() -> list[str]:
    """Returns the --config flags as they were given, for the runs."""
    if CONFIG.value is None:
        return []
    cli.required(CONFIG)
    flag = flags.FLAGS["config"]
    changes = config_flags.get_override_values(flag)
    return [f"--config={config_flags.get_config_filename(flag)}", *(f"--config.{k}={v}" for k, v in changes.items())]


if __name__ == "__main__":
    cli.run(main)
