"""Kills, cuts, fills and flips small runs on this machine, and says whether anything was lost.

python -m experiments.selftest [--workdir=DIR] [--config=configs/NAME.py] [--mesh=data:8] [--long] [--only=kill,cuts]
"""

import sys
import tempfile
from pathlib import Path

from absl import flags

from contextjax.types import UserError
from experiments.shared import cli

WORKDIR = flags.DEFINE_string("workdir", None, "What the drills leave is kept there; default: it is removed.")
CONFIG = cli.define_config()
MESH = flags.DEFINE_string("mesh", "", "Where the runs go, as data:8; default: the config's.")
LONG = flags.DEFINE_bool("long", False, "As often as `make test-slow`, with a soak of 20,000 steps.")
ONLY = flags.DEFINE_list(
    "only", [], "Some of damage, kill, sigterm, disk, io, cuts, meshes, sick, stall, soak; default: all."
)


def main() -> None:
    """Drill after drill, then the table; exit code 1: something was found."""
    import jax

    from experiments.fault_injection import table
    from experiments.fault_injection.plan import LONG as LONG_SIZES
    from experiments.fault_injection.plan import SHORT, Plan

    with tempfile.TemporaryDirectory(prefix="contextjax-selftest-") as scratch:
        folder = Path(WORKDIR.value or scratch).absolute()
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; give a new folder as --workdir, or none.")
        config = None if CONFIG.value is None else cli.required(CONFIG)
        plan = Plan(config, LONG_SIZES if LONG.value else SHORT, folder, mesh=MESH.value)
        jax.config.update("jax_platforms", "cpu")  # this process only compares: the devices are for the runs
        rows = []
        for row in plan.rows(ONLY.value):
            print(f"{row.drill}: {'pass' if row.passed else 'FAIL'}", flush=True)
            rows.append(row)
        print(f"\n{table(rows)}")
    sys.exit(0 if all(row.passed for row in rows) else 1)


if __name__ == "__main__":
    cli.run(main)
