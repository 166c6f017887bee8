"""Checks a folder of product photographs and its tables, and writes what their columns mean to catalogue.json.

python -m experiments.catalogue --data=FOLDER --tables=styles.csv --picture='images/{id}.jpg' \
    --attributes=gender:audience,articleType:kind,baseColour:colour,masterCategory:fixed [--title=productDisplayName]

An attribute is COLUMN:ROLE. The role says how a change of it is worded: colour ("in navy blue instead"), audience ("the
same for women"), kind ("a shirt instead of a t-shirt") or plain ("with usage sports"); what is fixed never changes.
Train on it with --config=configs/catalogue.py, or with data.reader=catalogue in a recipe of your own.
"""

import json
from collections import Counter
from pathlib import Path

from absl import flags

from experiments.shared import cli
from experiments.shared.paths import Place, define_path

DATA = define_path("data", Place.FOLDER, "The folder that holds the tables and the pictures.")
TABLES = flags.DEFINE_list("tables", None, "CSV files in it; later ones add columns to the first, by id.")
ATTRIBUTES = flags.DEFINE_list("attributes", None, "COLUMN:ROLE of each attribute; roles: see above.")
ID = flags.DEFINE_string("id", "id", "The column of the product's id.")
PICTURE = flags.DEFINE_string("picture", "images/{id}.jpg", "The picture's path in the folder; {COLUMN} is a value.")
TITLE = flags.DEFINE_string("title", "", "The column of a text about the product.")
SPLIT = flags.DEFINE_string("split", "", "The column of the split's name; without it the last digit of the id decides.")
VARYING = flags.DEFINE_list("varying", [], "Attributes by which products of a candidate set differ; none: the colours.")
ENCODING = flags.DEFINE_string("encoding", "utf-8", "The tables' encoding, unless a byte order mark says it.")
SKIP = flags.DEFINE_bool("skip", False, "Leave out rows with faults and products without a picture.")


def main() -> None:
    """Writes catalogue.json when the tables have no faults, or they are skipped, and prints what the readers make."""
    from contextjax.files import write_whole
    from contextjax.types import UserError
    from data_pipelines.datasets.catalogue.layout import FILE
    from data_pipelines.datasets.catalogue.summary import check_catalogue

    folder = Path(cli.required(DATA))
    given = cli.required(ATTRIBUTES)
    pairs = [each.rpartition(":") for each in given]
    if odd := [each for each, (column, _, role) in zip(given, pairs, strict=True) if not (column and role)]:
        raise UserError(f"--attributes has '{odd[0]}'; expected COLUMN:ROLE, as in baseColour:colour.")
    if twice := [column for column, count in Counter(column for column, *_ in pairs).items() if count > 1]:
        raise UserError(f"--attributes has the column {twice[0]} twice; give it one role.")
    content = {
        "tables": cli.required(TABLES), "id": ID.value, "picture": PICTURE.value, "title": TITLE.value,
        "attributes": {column: role for column, _, role in pairs}, "split": SPLIT.value, "varying": VARYING.value,
        "encoding": ENCODING.value,
        "faults": "skip" if SKIP.value else "fail",
    }  # fmt: skip
    lines = check_catalogue(folder, content)
    write_whole(folder / FILE, json.dumps(content, indent=2) + "\n")
    print("\n".join([*lines, f"{folder / FILE} is written."]))


if __name__ == "__main__":
    cli.run(main)
