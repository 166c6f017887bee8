"""What readers of composed queries share: rows of annotation files -> records, and all that is wrong told at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from contextjax.types import ComposedRecord, UserError
from data_pipelines.records import DatasetReader, check_problems, read_json
from data_pipelines.rows import Fault

Parsed = tuple[list[ComposedRecord], list[str]]  # records of all sound rows, and what is wrong with the others


class ComposedReader(DatasetReader[ComposedRecord]):
    """A folder of composed queries; it is never written to.

    A reader says where a split's rows are (`_file`), what a row asks for (`_queries`) and which pictures there are
    (`pictures`; `_named` where the rows alone decide). Keys that nobody asks for are tolerated.
    """

    record_type = ComposedRecord
    layout: str  # whose layout it is, for the messages
    folder: Path

    def annotation_files(self) -> list[Path]:
        """The files that decide what the set holds."""
        return [self._file(split) for split in self.splits]

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

    def _file(self, split: str) -> Path:
        raise NotImplementedError

    def _queries(self, split: str, number: int, row: Any) -> Iterable[ComposedRecord]:
        """The records of a row. Raises Fault."""
        raise NotImplementedError

    def _parsed(self, split: str) -> Parsed:
        file = self._file(split)
        rows = read_json(file, list, layout=self.layout)
        return parse(rows, lambda number, row: self._queries(split, number, row), file=file.name)

    def _named(self, split: str) -> list[str]:
        """The pictures that the queries of a split name, each once. Rows with faults are told by `records`."""
        records, _ = self._parsed(split)
        return list(dict.fromkeys(name for record in records for name in names_of(record)))


def parse(rows: Iterable[Any], make: Callable[[int, Any], Iterable[ComposedRecord]], *, file: str) -> Parsed:
    """The records that `make` gives for (number, row) of all rows, and the faults it raises, with their place."""
    records, problems = [], []
    for number, row in enumerate(rows):
        try:
            records += make(number, row)
        except Fault as fault:
            problems.append(f"row {number} of {file} {fault}")
    return records, problems


def names_of(record: ComposedRecord) -> list[str]:
    """All pictures that a record names."""
    return [name for name in (record.reference, record.target, *record.subset, *record.truths) if name]


def _faults(records: list[ComposedRecord], known: Collection[str]) -> Iterator[str]:
    for record in records:
        unknown = [name for name in names_of(record) if name not in known]
        if unknown:
            yield f"query {record.id} names the unknown picture {unknown[0]}"
        if not record.text.strip():
            yield f"query {record.id} has an empty text"
    for id, count in Counter(record.id for record in records).items():
        if count > 1:
            yield f"query {id} comes {count} times"
