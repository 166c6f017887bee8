"""Trains variants of a recipe for the same time, several seeds each, and prints their table. Run again, it continues.

python -m experiments.compare --config=configs/pictograms.py --variants=recipe,no_consistency,sum --minutes=3 \\
  --workdir=runs/compare

A variant with commas is quoted: --variants='recipe,"triplets500,weight8"'.
"""

from pathlib import Path

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

CONFIG = define_path("config", Place.FILE, "The recipe's file, without an argument.")
VARIANTS = flags.DEFINE_list("variants", ["recipe"], "Arguments of the recipe; 'recipe' is the recipe without one.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each variant; none: only the trials.")
MINUTES = flags.DEFINE_float(
    "minutes", 0.0, "Training time of a run (its steps follow from a short trial); 0: the recipe's."
)
WORKDIR = define_path("workdir", Place.NEW_FOLDER, "Where the runs go.")
STAGES = flags.DEFINE_list("stages", None, "Of a recipe in stages: those to train, of each variant that has them.")
ROWS = define_path("rows", Place.NEW_FILE, "The file of finished runs, a JSON line each; default: WORKDIR/rows.jsonl.")
KIND = flags.DEFINE_string("kind", "", "Rows have the metrics of queries of this kind, beside those of every kind.")
OVERRIDES = flags.DEFINE_list(
    "overrides",
    [],
    "Further settings of every run, data.folder=DIR or (of a stage) 1:model.start=RUN; {seed} becomes the run's.",
)


SPLITS = flags.DEFINE_list("splits", [], "Further splits to evaluate; a row has their metrics as SPLIT/R@1.")
BASELINES = flags.DEFINE_bool("baselines", False, "Evaluate picture and text alone, too: what is right on the rest.")
AGAINST = flags.DEFINE_string("against", "", "A variant: print the differences to it, seed by seed, and intervals.")
PAGE = define_path("page", Place.NEW_FILE, "A page with the table, and curves over the number of triplets.", default="")


def main() -> None:
    """Trains and evaluates the runs that the file of finished runs lacks, and prints the table of all."""
    from experiments.shared.variant_runs import VariantRuns
    from experiments.shared.variant_tables import differences, phrase_tables, table, write_page

    recipe, workdir = cli.required(CONFIG), Path(cli.required(WORKDIR))
    runs = VariantRuns(
        recipe, workdir, seconds=60 * MINUTES.value, stages=STAGES.value, overrides=OVERRIDES.value, kind=KIND.value,
        splits=SPLITS.value, baselines=BASELINES.value,
    )  # fmt: skip
    rows = runs.complete(Path(ROWS.value or workdir / "rows.jsonl"), variants=VARIANTS.value, seeds=SEEDS.value)
    if rows:
        print("\n\n".join(filter(None, (table(rows), phrase_tables(rows)))))
    if AGAINST.value:
        print(f"\n{differences(rows, AGAINST.value)}")
    if PAGE.value:
        write_page(Path(PAGE.value), rows, title=workdir.name)
        print(f"The page is {PAGE.value}.")


if __name__ == "__main__":
    cli.run(main)
