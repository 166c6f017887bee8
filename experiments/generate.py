"""Writes the embedded data set: python -m experiments.generate --target=data/pictograms. Same seed, same bytes."""

from pathlib import Path

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

TARGET = define_path(
    "target", Place.NEW_FOLDER, "Folder to write: cirr/ (composed triplets) and imagecode/ (candidate sets)."
)
PICTOGRAMS = define_path("pictograms", Place.FOLDER, "A folder of named pictures to use instead of Twemoji.")
TRAIN_GROUPS = flags.DEFINE_integer(
    "train_groups", 6000, "Training groups of six scenes, 24 triplets each.", lower_bound=1
)
TRAIN_SETS = flags.DEFINE_integer("train_sets", 3000, "Training candidate sets of ten scenes; 0: none.", lower_bound=0)
COMPARATIVE = flags.DEFINE_bool(
    "comparative", False, "Write contextual/ too: candidate sets of which half have descriptions that compare them."
)
CANVAS = flags.DEFINE_integer(
    "canvas", 64, "Side of the pictures in pixels; 128 for 64 patches of 16.", lower_bound=32, upper_bound=1024
)
SEED = flags.DEFINE_integer("seed", 0, "Seed of everything that is drawn.")
MULTI_GROUPS = 250  # of six scenes: 1,500 queries of three edits each, the validation slice "multi"


def main() -> None:
    """Writes both layouts; does nothing if the same set is there already."""
    from contextjax.types import UserError
    from data_pipelines.datasets.imagecode import read_bounds
    from data_pipelines.datasets.pictograms.cirr_layout import write_cirr
    from data_pipelines.datasets.pictograms.imagecode_layout import write_imagecode

    target = Path(cli.required(TARGET))
    if COMPARATIVE.value and not TRAIN_SETS.value:
        raise UserError("--comparative is given with --train_sets=0, which makes no candidate sets; give 1 or more.")
    common = {"seed": SEED.value, "pictograms": PICTOGRAMS.value, "canvas": CANVAS.value}
    try:
        write_cirr(target / "cirr", train_groups=TRAIN_GROUPS.value, multi_groups=MULTI_GROUPS, **common)
        if TRAIN_SETS.value:
            write_imagecode(target / "imagecode", train_sets=TRAIN_SETS.value, **common)
        if COMPARATIVE.value:
            sets = write_imagecode(target / "contextual", train_sets=TRAIN_SETS.value, comparative=True, **common)
            for kind, bound in read_bounds(sets).items():
                print(f"bound/{kind}: {bound:.1f} % for a model that sees one candidate at a time")
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f"The data set is in {target}.")


if __name__ == "__main__":
    cli.run(main)
