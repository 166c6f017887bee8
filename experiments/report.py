"""Shows a run on a page: python -m experiments.report --workdir=DIR [--split=val]. Writes DIR/report/index.html.

The page of a split other than the config's val_split is DIR/report/SPLIT.html. Where training wrote to a tracker
(experiments.train --track), the page is attached to the run there.
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
    from experiments.shared.trackers import attach_to_trackers

    workdir = path_of(cli.required(WORKDIR))
    page = write_report(workdir, split=SPLIT.value)
    print(f"Report: {page}")
    for name in attach_to_trackers(workdir, page):
        print(f"The page is attached to the run in {name}.")


if __name__ == "__main__":
    cli.run(main)
