"""What readers of composed queries share: rows of annotation files -> records, and all that is wrong told at once."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from contextjax.json_files import read_json
from contextjax.types import ComposedRecord, UserError
from data_pipelines import rows
from data_pipelines.records import DatasetReader, check_problems, named_pictures


class ComposedReader(DatasetReader[ComposedRecord]):
    """A folder of composed queries; it is never written to.

    A reader says which files a split's rows are in (`_files`), what a row asks for (`_queries`), and which pictures
    there are (`pictures`; by `_named`, where the rows alone decide). Keys that no reader asks for are tolerated.
    """

    record_type = ComposedRecord
    layout: str  # whose layout it is, for the messages
    folder: Path

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return [file for split in self.splits for file in self._files(split)]

    def captions(self, split: str) -> dict[str, str]:
        """None: texts say how pictures differ, not what they show."""
        return {}

    def records(self, split: str) -> list[ComposedRecord]:
        """All queries of a split.

        Raises:
          UserError: rows lack something, queries name pictures that the split does not have, have no text, or share
            an id; all of it at once.
        """
        records, problems = self._parsed(split)
        problems = [*problems, *_faults(records, self.pictures(split))]
        check_problems(problems, f"Split '{split}' of {self.layout}")
        if not records:
            raise UserError(f"Split '{split}' of {self.folder} holds no queries; expected at least one.")
        return records

    @abstractmethod
    def _files(self, split: str) -> list[Path]:
        """The files of a split's rows."""

    @abstractmethod
    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        """The records of a row. Raises rows.Fault."""

    def _rows(self, file: Path) -> list[Any]:
        return read_json(file, list, layout=self.layout)

    def _parsed(self, split: str) -> tuple[list[ComposedRecord], list[str]]:
        """The records of all sound rows, and what is wrong with the others."""
        records, problems = [], []
        for file in self._files(split):
            make = lambda number, row, file=file: self._queries(file, number, row)
            found, faults = rows.parse(self._rows(file), make, file=file.name)
            records, problems = records + found, problems + faults
        return records, problems

    def _named(self, split: str) -> list[str]:
        """The pictures that the queries of a split name, each once. Rows with faults are told by `records`."""
        records, _ = self._parsed(split)
        return list(dict.fromkeys(name for record in records for name in named_pictures(record)))


def _faults(records: list[ComposedRecord], known: Collection[str]) -> Iterator[str]:
    for record in records:
        unknown = [name for name in named_pictures(record) if name not in known]
        if unknown:
            yield f"query {record.id} names the unknown picture {unknown[0]}"
        if not record.text.strip():
            yield f"query {record.id} has an empty text"
    for id, count in Counter(record.id for record in records).items():
        if count > 1:
            yield f"query {id} comes {count} times"
