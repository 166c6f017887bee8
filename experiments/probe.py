"""Probes how robust candidate sets are answered: accuracy as pictures, texts and the order of candidates change.

python -m experiments.probe --workdir=RUN [--split=val] [--checkpoint=best]
python -m experiments.probe --workdir=DIR --source=CLIP_OR_BLIP --data=FOLDER --protocol=imagecode [--split=val]

Pixels are permuted within patches, patches or all pixels change places, patches are masked, texts of other sets follow
a text, and candidates change their order (scores must change theirs alike). Writes WORKDIR/probes.json, which
`contextjax report` shows; of another split or other data probes.*.json, named as the evaluation's file is.
"""

from absl import flags

from contextjax.files import path_of
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

WORKDIR = define_path("workdir", Place.NEW_FOLDER, "The workdir of a training run; the result is written there.")
SOURCE = define_path(
    "source", Place.SOURCE, "What to probe: a folder or hub id of CLIP or BLIP; default: the run.", default=""
)
SPLIT = flags.DEFINE_string("split", None, "The split; default: the config's val_split, or val.")
DATA = define_path("data", Place.FOLDER, "The data set's folder; default: the config's.", default="")
PROTOCOL = flags.DEFINE_string("protocol", "", "imagecode or mmvp; default: that of the config's data.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "", "best, newest or a step, as of experiments.evaluate.")
RECORDS = flags.DEFINE_integer("records", 0, "Only so many descriptions, evenly spread; 0: all.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is drawn.", lower_bound=0)
PREPARED = cli.define_prepared()


def main() -> None:
    """Scores the split once for every probe and strength, and prints a table."""
    from experiments.shared.run_probes import probe_run

    probe_run(
        path_of(cli.required(WORKDIR)), source=SOURCE.value, checkpoint=CHECKPOINT.value, count=RECORDS.value,
        seed=SEED.value, split=SPLIT.value, folder=DATA.value, protocol=PROTOCOL.value, prepared=PREPARED.value,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
