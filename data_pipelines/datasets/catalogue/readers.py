"""The three readers of a catalogue: composed queries, candidate sets, and captions."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, UserError
from data_pipelines.datasets.catalogue import changes
from data_pipelines.datasets.catalogue.layout import FILE, read_layout
from data_pipelines.datasets.catalogue.table import Product, read_catalogue
from data_pipelines.readers import DatasetReader, SplitRecords
from data_pipelines.records import Record, check_problems


class _CatalogueReader(DatasetReader[Record]):
    """Reads the products of a folder with a catalogue.json.

    A product's picture has the product's id. Its caption has the title where the class says `titles`.

    Raises:
      UserError: catalogue.json or a table is missing or faulty, or no row is without a fault.
    """

    layout = "a catalogue"
    titles = True

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.description = read_layout(self.folder)
        self.catalogue = read_catalogue(self.folder, self.description)
        self.splits = tuple(sorted({product.split for product in self.catalogue.products}))
        if not self.splits:
            check_problems(self.catalogue.faults, str(self.folder))
            raise UserError(f"The tables of {self.folder} have no product; expected at least one.")

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return [self.folder / name for name in (FILE, *self.description.tables)]

    def pictures(self, split: str) -> dict[str, Path]:
        """Returns product id -> file, in the order of the ids.

        Raises:
          UserError: rows have faults, and catalogue.json does not say that they are skipped; the message lists them.
        """
        return {product.id: self.folder / product.picture for product in self.products(split)}

    def captions(self, split: str) -> dict[str, str]:
        """Returns product id -> a text with its attributes, and with its title where the reader has `titles`."""
        of = lambda product: changes.caption_of(product, self.description, title=self.titles)
        return {product.id: of(product) for product in self.products(split)}

    @functools.lru_cache(8)  # noqa: B019 (a reader lives as long as its command)
    def products(self, split: str) -> tuple[Product, ...]:
        """Returns the products of a split.

        Raises:
          UserError: rows have faults, and catalogue.json does not say that they are skipped; the message lists them.
        """
        if self.description.faults == "fail":
            check_problems(self.catalogue.faults, str(self.folder))
        return tuple(product for product in self.catalogue.products if product.split == split)

    def _made(self, records: list[Any], what: str) -> SplitRecords[Any]:
        return self._checked(records, [], self.folder / self.description.tables[0], what)


class CatalogueReader(_CatalogueReader[ComposedRecord]):
    """Reads a catalogue as composed queries, see changes.composed_queries.

    Captions have the attributes alone: products with the same caption answer the same queries.
    """

    name = "catalogue"
    titles = False
    record_type = ComposedRecord

    def read(self, split: str) -> SplitRecords[ComposedRecord]:
        """Returns the queries of a split; all splits but "train" have groups and all right answers.

        Raises:
          UserError: rows have faults that are not skipped, or no two products differ in one attribute alone.
        """
        made = changes.composed_queries(self.products(split), self.description, train=split == "train")
        return self._made(made, "products of this split that differ in one or two attributes")


class CatalogueSetsReader(_CatalogueReader[CandidateRecord]):
    """Reads a catalogue as candidate sets, see changes.candidate_sets."""

    name = tables = "catalogue_sets"
    record_type = CandidateRecord

    def read(self, split: str) -> SplitRecords[CandidateRecord]:
        """Returns the descriptions of a split.

        Raises:
          UserError: rows have faults that are not skipped, or no ten products agree in all but what varies.
        """
        made = changes.candidate_sets(self.products(split), self.description)
        return self._made(made, f"{changes.CANDIDATES} products of this split that agree in all but what varies")


class CatalogueCaptionsReader(_CatalogueReader[CaptionRecord]):
    """Reads a catalogue as pictures with a text: one record for each product."""

    name = tables = "catalogue_captions"
    record_type = CaptionRecord

    def read(self, split: str) -> SplitRecords[CaptionRecord]:
        """Returns a caption of each product of a split.

        Raises:
          UserError: rows have faults that are not skipped.
        """
        made = [CaptionRecord(id, id, text) for id, text in self.captions(split).items()]
        return self._made(made, "products of this split")
