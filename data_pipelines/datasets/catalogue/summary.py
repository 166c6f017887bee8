"""Describes what a catalogue holds and what its readers make of it, as lines for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from contextjax.files import write_whole
from contextjax.types import NAMED, UserError, listed
from data_pipelines.datasets.catalogue.changes import candidate_sets, composed_queries
from data_pipelines.datasets.catalogue.layout import make_layout
from data_pipelines.datasets.catalogue.table import read_catalogue

EXAMPLES = 5
FAULTS_FILE = "catalogue.faults.txt"  # beside the tables: all faults, where they are too many for a message


def check_catalogue(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """Reads the tables of a catalogue by a description and returns lines about what they hold.

    Where a message can't name all faults, it names the file of the folder that does, a line a fault.

    Args:
      folder: the folder of the tables.
      content: the fields of CatalogueLayout, as catalogue.json has them.

    Raises:
      UserError: the description, a table or rows are faulty, or no row is without a fault; the message lists the first
        faults and counts them all.
    """
    layout = make_layout(content)
    catalogue = read_catalogue(folder, layout)
    faults, count = listed(catalogue.faults, between="; "), f"{len(catalogue.faults):,}"
    if _write_faults(folder / FAULTS_FILE, catalogue.faults):
        faults += f" (all of them: {folder / FAULTS_FILE})"
    if catalogue.faults and layout.faults == "fail":
        raise UserError(f"{folder} has {count} faults: {faults}. Mend them, or leave these rows out with --skip.")
    if not catalogue.products:
        left = f" without a fault; {count} have one: {faults}" if catalogue.faults else ""
        raise UserError(f"The tables of {folder} have no row{left}. Expected at least one product.")
    lines = [f"{len(catalogue.products):,} products; {count} rows are left out."]
    lines += [f"  left out: {faults}"] if catalogue.faults else []
    for at, column in enumerate(layout.attributes):
        counts = Counter(product.values[at] for product in catalogue.products)
        without = counts.pop("", 0)
        common = ", ".join(value for value, _ in counts.most_common(EXAMPLES))
        lines.append(f"{column}: {len(counts)} values ({common} ...); {without:,} products have none")
    splits = sorted({product.split for product in catalogue.products})
    for split in splits:
        products = [product for product in catalogue.products if product.split == split]
        queries = composed_queries(products, layout, train=split == "train")
        kinds = Counter(kind for record in queries for kind in record.kinds)
        counted = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
        sets = len({record.set for record in candidate_sets(products, layout)})
        lines.append(f"{split}: {len(products):,} products, {len(queries):,} queries ({counted}), {sets:,} sets of ten")
        shown = Random(0).sample(queries, min(EXAMPLES, len(queries)))
        lines += [f"  {record.reference}: {record.text} -> {record.target}" for record in shown]
    if "train" not in splits:
        lines.append(f"There is no split 'train' to train on; the splits are {listed(splits)}.")
    return lines


def _write_faults(path: Path, faults: Sequence[str]) -> bool:
    """Writes faults that are too many for a message, a line each; else removes the file of an earlier check.

    Returns False where nothing was written: there are few, or the folder can't be written.
    """
    try:
        if len(faults) > NAMED:
            write_whole(path, "".join(f"{fault}\n" for fault in faults))
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return len(faults) > NAMED
