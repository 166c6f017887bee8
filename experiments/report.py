"""Shows a run on a page: python -m experiments.report --workdir=DIR [--split=val]. Writes DIR/report/index.html.

The page of a split other than the config's val_split is DIR/report/SPLIT.html.
"""

from absl import flags

from contextjax.files import path_of
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path("workdir", Place.FOLDER, "The workdir of a training run that experiments.evaluate has evaluated.")
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split.")


def main() -> None:
    """Writes the page of a run."""
    from experiments.shared.run_report import write_report

    print(f"Report: {write_report(path_of(cli.required(WORKDIR)), split=SPLIT.value)}")


if __name__ == "__main__":
    cli.run(main)
