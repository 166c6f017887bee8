"""Checks a data set, writes its tables and prints a census of them: the first step of training, by itself.

python -m experiments.prepare --reader=cirr --data=FOLDER [--split=val] [--bad_pictures=skip] [--prepared=DIR]

With --cluster the nodes of a Ray cluster read and check the pictures (docs/guides/cluster.md).
"""

from pathlib import Path

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

READER = flags.DEFINE_string("reader", None, "The layout, as in a config's data.reader: cirr, imagecode, captions, ...")
DATA = define_path("data", Place.FOLDER, "The data set's folder.")
SPLIT = flags.DEFINE_string("split", None, "One split; without it, all of them.")
BAD_PICTURES = flags.DEFINE_enum(
    "bad_pictures", "fail", ["fail", "skip"], "What is done about missing and unreadable pictures; skip: for training."
)
PREPARED = cli.define_prepared()
CLUSTER = cli.define_cluster()


def main() -> None:
    """Prepares every split; the problems of splits are reported after the censuses of the others."""
    from contextjax.types import UserError
    from data_pipelines import census
    from data_pipelines.prepare import prepare, prepared_folder
    from experiments.shared.clusters import engine_of
    from experiments.shared.data import make_reader

    folder = Path(cli.required(DATA))
    reader = make_reader(cli.required(READER), folder)
    problems, place = [], prepared_folder(folder, PREPARED.value)
    with engine_of(CLUSTER.value, reads=[folder], writes=place) as engine:
        for split in [SPLIT.value] if SPLIT.value else reader.splits:
            try:
                prepared = prepare(
                    reader, folder, split, bad_pictures=BAD_PICTURES.value, place=PREPARED.value, engine=engine
                )
            except UserError as error:
                problems.append(str(error))
                continue
            print("\n".join([*prepared.notes, *census.lines(split, prepared.census)]), flush=True)
            print(f"  tables and census: {prepared.place}")
    if problems:
        raise UserError(" ".join(problems))


if __name__ == "__main__":
    cli.run(main)
