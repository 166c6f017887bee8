"""The tables of docs/results/scaling.md, from plans that experiments.plan has written.

python -m experiments.scaling [--plans=results/plans]

A plan's file is SIZE-MESH.json, such as H14-data8,fsdp8.json.
"""

from pathlib import Path

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

PLANS = define_path("plans", Place.FOLDER, "The folder of plans.", default="results/plans")


def main() -> None:
    """Reads the plans and prints the tables."""
    from experiments.shared.scaling_tables import tables

    print("\n\n".join(tables(Path(PLANS.value))))


if __name__ == "__main__":
    cli.run(main)
