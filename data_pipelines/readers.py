"""The base classes of all readers of data sets, and of those that read composed queries.

Published files are read as they are. Records without a text and repeated records count in an evaluation, as they do in
other implementations. A record that names a picture that the set does not have can't be scored, and is listed
separately. Training leaves all of these out (`for_training`). Rows that are no records at all (of another type, without
a reference) are faults, and the split is refused.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

from contextjax.json_files import read_json
from contextjax.types import CandidateRecord, ComposedRecord, UserError
from data_pipelines import annotations
from data_pipelines.boxes import box_files, with_boxes
from data_pipelines.records import AnyRecord, PictureFile, Record, check_problems, matching, named_pictures
from data_pipelines.texts import has_words

BLANK, REPEATED = "without a text", "repeated"
HALF, TRIMMED = "with half a text", "with unknown pictures in their group"


@dataclasses.dataclass(frozen=True)
class SplitRecords(Generic[Record]):
    """The records of a split.

    Attributes:
      records: all that can be scored, in their order.
      unknown: a sentence about each other record, which names a picture that the set does not have.
      odd: kind of oddity (BLANK, ...) -> ids of the records.
    """

    records: list[Record]
    unknown: list[str]
    odd: dict[str, list[str]]


def split_records(
    records: list[Record], unknown: Sequence[str] = (), odd: Mapping[str, Sequence[str]] | None = None
) -> SplitRecords[Record]:
    """Returns the records of a split with their oddities; `odd` has those that only the reader can detect."""
    chosen = {id(record) for record in for_training(record for record in records if has_words(record.text))}
    blank = [record.id for record in records if not has_words(record.text)]
    repeated = [record.id for record in records if has_words(record.text) and id(record) not in chosen]
    kinds = {BLANK: blank, REPEATED: repeated, **(odd or {})}
    return SplitRecords(records, list(unknown), {kind: list(ids) for kind, ids in kinds.items() if ids})


def for_training(records: Iterable[Record]) -> list[Record]:
    """Returns the records to train on: those with a text, each once."""
    chosen: list[Record] = []
    kept: set[Any] = set()
    for record in records:
        same = _same(record)
        if has_words(record.text) and kept.isdisjoint(same):
            chosen.append(record)
            kept.update(same)
    return chosen


def _same(record: AnyRecord) -> tuple[Any, ...]:
    """Returns two keys of a record, its id and all other fields; records that share either count as repeated."""
    content: AnyRecord = dataclasses.replace(record, id="")
    if isinstance(content, CandidateRecord):  # a text of two candidates of a set describes neither
        content = dataclasses.replace(content, target=None, boxes=None)
    return record.id, content


class DatasetReader(ABC, Generic[Record]):
    """A folder as its authors publish it, seen as pictures (id -> file) and records; the folder is never written to.

    Attributes:
      name: the name that a config's `data.reader` gives the reader.
      layout: whose layout the folder has, for the messages.
      record_type: the type of the records.
      tables: what distinguishes its tables from those of another reader of the same folder, whose records or captions
        are others; "": nothing does.
      folder: the folder.
      splits: the splits that it has.
    """

    name: str
    layout: str
    record_type: type[Record]
    tables: str = ""
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
    def read(self, split: str) -> SplitRecords[Record]:
        """Returns all records of a split.

        Raises:
          UserError: rows are faulty or there are none; the message lists all faults.
        """

    def records(self, split: str) -> list[Record]:
        """Returns the records of a split that can be scored, see `read`."""
        return self.read(split).records

    def _with_boxes(self, records: list[Record], split: str) -> list[Record]:
        """Returns the records with boxes, where the folder has a file of them, see data_pipelines.boxes."""
        return with_boxes(records, self.folder, split, self.pictures(split)) if box_files(self.folder) else records

    def _checked(
        self, records: list[Record], problems: list[str], file: Path, what: str, *, unknown: Sequence[str] = (),
        split: str = "",
    ) -> SplitRecords[Record]:  # fmt: skip
        """Returns the records of a file, called `what` in messages. Raises UserError if there are problems or none.

        With `split`, the records get the boxes of that split.
        """
        check_problems([*problems, *unknown] if problems or not records else [], file.name)
        if not records:
            raise UserError(f"{file} holds no {what}; expected at least one.")
        return split_records(self._with_boxes(records, split) if split else records, unknown)


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
        self._half: set[str] = set()  # ids of queries of which a part of the text is blank
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

    def read(self, split: str) -> SplitRecords[ComposedRecord]:
        """Returns all queries of a split.

        A picture of a group, or of several right ones, that the split does not have is taken off its record.

        Raises:
          UserError: rows lack something, or there are no queries that can be scored. The message lists all faults.
        """
        every, problems = self._parsed(split)
        known, records, unknown, trimmed = self.pictures(split), [], [], []
        for record in every:
            if absent := [name for name in (record.reference, record.target) if name is not None and name not in known]:
                unknown.append(f"query {record.id} names the unknown picture {absent[0]}")
                continue
            present = [tuple(name for name in names if name in known) for names in (record.subset, record.truths)]
            if present != [record.subset, record.truths]:
                trimmed.append(record.id)
                record = dataclasses.replace(record, subset=present[0], truths=present[1])
            records.append(record)
        where = f"Split '{split}' of {self.layout}"
        check_problems([*problems, *unknown] if problems or not records else [], where)
        if not records:
            raise UserError(f"Split '{split}' of {self.folder} holds no queries; expected at least one.")
        half = [record.id for record in records if record.id in self._half]
        return split_records(self._with_boxes(records, split), unknown, {HALF: half, TRIMMED: trimmed})

    def _find_splits(self) -> Iterable[str]:
        if self.known_splits:
            return [split for split in self.known_splits if self._files(split)[0].exists()]
        before, _, after = self.queries.partition("{split}")
        files = [str(path.relative_to(self.folder)) for path in matching(self.folder, f"{before}*{after}")]
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
        self._half = set()
        for file in self._files(split):
            make = lambda number, row, file=file: self._queries(file, number, row)
            sound, faults = annotations.parse(self._rows(file), make, file=file.name)
            records, problems = records + sound, problems + faults
        return records, problems

    def _named(self, split: str) -> list[str]:
        """Returns the pictures that the queries of a split name, each once. `records` reports rows with faults."""
        records, _ = self._parsed(split)
        return list(dict.fromkeys(name for record in records for name in named_pictures(record)))
