"""Runs tasks of MTEB, the Massive Text Embedding Benchmark: composed retrieval (it2i), texts and pictures (t2i, i2t).

python -m experiments.mteb --source=RUN_OR_CLIP --tasks=CIRRIT2IRetrieval,FashionIQIT2IRetrieval --target=DIR

Tasks have the names of the package mteb, which loads their data from the hub and writes results in its own form below
DIR/results. A task that is there already, of the same model, is not run again.
"""

from absl import flags

from contextjax.files import local_path
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

SOURCE = define_path("source", Place.SOURCE, "A run, an export, or a folder or hub id of a CLIP or BLIP.")
TASKS = flags.DEFINE_list("tasks", None, "Names of tasks, with commas between them.")
TARGET = define_path("target", Place.NEW_FOLDER, "The folder of the results.")
QUERY = flags.DEFINE_string("query", "", "How a composed query is made; default: as the system does it.")
NAME = flags.DEFINE_string("name", "", "organisation/model, as the results name the system; default: contextjax/QUERY.")
BATCH = flags.DEFINE_integer("batch_size", 64, "Rows that are encoded at a time.", lower_bound=1)


def main() -> None:
    """Runs the tasks that the flags name, and prints the main score of each."""
    from experiments.shared.run_mteb import run_tasks

    run_tasks(
        cli.required(SOURCE), cli.required(TASKS), local_path(cli.required(TARGET)), query=QUERY.value,
        name=NAME.value, batch_size=BATCH.value,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
