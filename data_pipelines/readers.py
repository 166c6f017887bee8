"""The base classes of all readers of data sets, and of those that read composed queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic

from contextjax.json_files import read_json
from contextjax.types import ComposedRecord, UserError
from data_pipelines import annotations
from data_pipelines.records import PictureFile, Record, check_problems, named_pictures


class DatasetReader(ABC, Generic[Record]):
    """A folder as its authors publish it, seen as pictures (id -> file) and records; the folder is never written to.

    Attributes:
      name: the name that a config's `data.reader` gives the reader.
      layout: whose layout the folder has, for the messages.
      record_type: the type of the records.
      folder: the folder.
      splits: the splits that it has.
    """

    name: str
    layout: str
    record_type: type[Record]
    splits: tuple[str, ...]

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""

    @abstractmethod
    def pictures(self, split: str) -> Mapping[str, PictureFile]:
        """Returns picture id -> file, or the region of a file that the picture is."""

    def captions(self, split: str) -> dict[str, str]:
        """Returns picture id -> caption; empty where the set has no captions beside its records."""
        return {}

    @abstractmethod
    def records(self, split: str) -> list[Record]:
        """Returns all records of a split.

        Raises:
          UserError: rows are faulty or there are none; the message lists all faults.
        """

    def _checked(self, records: list[Record], problems: list[str], file: Path, what: str) -> list[Record]:
        """Returns the records of a file, called `what` in messages. Raises UserError if there are problems or none."""
        check_problems(problems, file.name)
        if not records:
            raise UserError(f"{file} holds no {what}; expected at least one.")
        return records


class ComposedReader(DatasetReader[ComposedRecord]):
    """A folder of composed queries.

    A reader says in which files the rows of a split are (`queries`, or `_files`), what a row asks for (`_queries`), and
    which pictures there are (`pictures`; by `_named`, where the rows alone decide). Keys that no reader asks for are
    tolerated.

    Attributes:
      queries: the path of a split's file in the folder, with "{split}" for the name of the split.
      known_splits: the only names that a split can have; empty: every file of that pattern is a split.
      remedy: what to do where the folder has no such file, for the messages.
    """

    record_type = ComposedRecord
    queries: str
    known_splits: tuple[str, ...] = ()
    remedy = "check the path"

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.splits = tuple(self._find_splits())
        if not self.splits:
            names = f"{{{','.join(self.known_splits)}}}" if self.known_splits else "*"
            raise UserError(
                f"{self.folder} holds no {self.queries.format(split=names)}; expected a folder in {self.layout}'s "
                f"layout: {self.remedy}."
            )

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return [file for split in self.splits for file in self._files(split)]

    def records(self, split: str) -> list[ComposedRecord]:
        """Returns all queries of a split.

        Raises:
          UserError: rows lack something, queries name pictures that the split does not have, have no text, or share
            an id; or there are no queries. The message lists all faults.
        """
        records, problems = self._parsed(split)
        problems = [*problems, *_faults(records, self.pictures(split))]
        check_problems(problems, f"Split '{split}' of {self.layout}")
        if not records:
            raise UserError(f"Split '{split}' of {self.folder} holds no queries; expected at least one.")
        return records

    def _find_splits(self) -> Iterable[str]:
        if self.known_splits:
            return [split for split in self.known_splits if self._files(split)[0].exists()]
        before, _, after = self.queries.partition("{split}")
        files = sorted(str(path.relative_to(self.folder)) for path in self.folder.glob(f"{before}*{after}"))
        return [file.removeprefix(before).removesuffix(after) for file in files]

    def _files(self, split: str) -> list[Path]:
        """Returns the files of a split's rows."""
        return [self.folder / self.queries.format(split=split)]

    @abstractmethod
    def _queries(self, file: Path, number: int, row: Any) -> Iterable[ComposedRecord]:
        """Yields the records of a row. Raises annotations.Fault."""

    def _rows(self, file: Path) -> list[Any]:
        return read_json(file, list, layout=self.layout)

    def _parsed(self, split: str) -> tuple[list[ComposedRecord], list[str]]:
        """Returns the records of all sound rows, and the problems of the others."""
        records, problems = [], []
        for file in self._files(split):
            make = lambda number, row, file=file: self._queries(file, number, row)
            sound, faults = annotations.parse(self._rows(file), make, file=file.name)
            records, problems = records + sound, problems + faults
        return records, problems

    def _named(self, split: str) -> list[str]:
        """Returns the pictures that the queries of a split name, each once. `records` reports rows with faults."""
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
