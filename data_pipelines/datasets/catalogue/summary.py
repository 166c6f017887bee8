"""Describes what a catalogue holds and what its readers make of it, as lines for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from contextjax.types import UserError, listed
from data_pipelines.datasets.catalogue.changes import candidate_sets, composed_queries
from data_pipelines.datasets.catalogue.layout import make_layout
from data_pipelines.datasets.catalogue.table import read_catalogue

EXAMPLES = 5


def check_catalogue(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """Reads the tables of a catalogue by a description and returns lines about what they hold.

    Args:
      folder: the folder of the tables.
      content: the fields of CatalogueLayout, as catalogue.json has them.

    Raises:
      UserError: the description, a table or rows are faulty; the message lists the first faults and counts them all.
    """
    layout = make_layout(content)
    catalogue = read_catalogue(folder, layout)
    if catalogue.faults and layout.faults == "fail":
        raise UserError(
            f"{folder} has {len(catalogue.faults):,} faults: {listed(catalogue.faults, between='; ')}. Mend them, or "
            "leave these rows out with --skip."
        )
    lines = [f"{len(catalogue.products):,} products; {len(catalogue.faults):,} rows are left out."]
    lines += [f"  left out: {listed(catalogue.faults, between='; ')}"] if catalogue.faults else []
    for at, column in enumerate(layout.attributes):
        counts = Counter(product.values[at] for product in catalogue.products)
        without = counts.pop("", 0)
        common = ", ".join(value for value, _ in counts.most_common(EXAMPLES))
        lines.append(f"{column}: {len(counts)} values ({common} ...); {without:,} products have none")
    for split in sorted({product.split for product in catalogue.products}):
        products = [product for product in catalogue.products if product.split == split]
        queries = composed_queries(products, layout, train=split == "train")
        kinds = Counter(kind for record in queries for kind in record.kinds)
        counted = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
        sets = len({record.set for record in candidate_sets(products, layout)})
        lines.append(f"{split}: {len(products):,} products, {len(queries):,} queries ({counted}), {sets:,} sets of ten")
        shown = Random(0).sample(queries, min(EXAMPLES, len(queries)))
        lines += [f"  {record.reference}: {record.text} -> {record.target}" for record in shown]
    return lines
