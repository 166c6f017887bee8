"""Classifies a folder of classes by the names of its classes (zero-shot), and by a linear probe on top of embeddings.

python -m experiments.classify --source=RUN_OR_CLIP --data=FOLDER [--split=test] [--probe] [--result=FILE.json]

FOLDER has a folder of pictures for each class, within the splits train, val and test or without. Zero-shot, a picture
belongs to the class whose name, in the templates ("a photo of a {}."), has the closest embedding; a folder's name is
read with spaces for "_", or as --names={folder: words} has it. --probe trains a logistic regression on the pictures of
train. Accuracies are of --split: top1 with its interval of 95 %, top5, and the mean over classes.
"""

from absl import flags

from contextjax.files import local_path
from experiments.shared import cli
from experiments.shared.paths import Place, define_path

SOURCE = define_path("source", Place.SOURCE, "A run, an export, or a folder or hub id of a CLIP or BLIP.")
DATA = define_path("data", Place.FOLDER, "The folder of classes.")
SPLIT = flags.DEFINE_string("split", "", "What is classified; default: test, else val, else the whole folder.")
NAMES = define_path("names", Place.FILE, "A JSON file {folder: words} with the names of the classes.", default="")
TEMPLATE = flags.DEFINE_multi_string("template", ["a photo of a {}."], "The text around a name; may be given again.")
PROBE = flags.DEFINE_bool("probe", False, "Train a linear probe on the split train, too.")
RESULT = define_path("result", Place.NEW_FILE, "A JSON file for the result.", default="")


def main() -> None:
    """Classifies what the flags name, and prints the accuracies."""
    from experiments.shared.classification import classify

    classify(
        cli.required(SOURCE), local_path(cli.required(DATA)), split=SPLIT.value, templates=TEMPLATE.value,
        names=local_path(NAMES.value) if NAMES.value else None, probe=PROBE.value,
        result=local_path(RESULT.value) if RESULT.value else None,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
