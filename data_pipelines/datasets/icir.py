"""i-CIR's layout: shards of a WebDataset, as they are published. An instance is one particular object.

webdataset/query/query-000000.tar, ...         (samples KEY.{jpg,png,jpeg,webp} and KEY.json)
webdataset/database/database-000000.tar, ...
annotations/{query,database}_files.csv         (a row for each sample, without a header)

KEY.json: {"img_path": text, "text": text, "instance": text}

A query ranks the database of its own instance. Right are its pictures with the query's text. A picture's id is
"INSTANCE/IMG_PATH", that of a query's picture ".query/IMG_PATH". The files' layout and the protocol are those of
github.com/billpsomas/icir and of the data set's page on the hub.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextjax.json_files import LONG_LIST, parse_json, read_text
from contextjax.types import ComposedRecord, UserError
from data_pipelines import annotations, shards
from data_pipelines.readers import DatasetReader, SplitRecords, split_records
from data_pipelines.records import check_problems, matching

SPLIT, QUERY = "test", ".query"
SIDES = ("query", "database")
ENDINGS = ("jpg", "png", "jpeg", "webp")  # the first one of a sample counts, as in the published code
MAX_JSON = 1 << 20


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture of a query or of the database: its id, its text, its instance, and where it is."""

    id: str
    text: str
    instance: str
    picture: shards.Member


class IcirReader(DatasetReader[ComposedRecord]):
    """Reads a folder with i-CIR's shards; nothing is unpacked.

    Raises:
      UserError: the folder has no shards, or not those that its annotations list.
    """

    name = "icir"
    layout = "i-CIR"
    record_type = ComposedRecord
    splits = (SPLIT,)

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self._shards = {side: matching(self.folder / "webdataset" / side, f"{side}-*.tar") for side in SIDES}
        for side, files in self._shards.items():
            if not files:
                raise UserError(
                    f"{self.folder} holds no webdataset/{side}/{side}-*.tar; expected i-CIR's shards as the hub has "
                    "them: check the path, or download them (`hf download billpsomas/icir --repo-type dataset`)."
                )

    def annotation_files(self) -> list[Path]:
        """Returns the files that decide what the set holds."""
        return [self.folder / "annotations" / f"{side}_files.csv" for side in SIDES]

    def pictures(self, split: str) -> dict[str, shards.Member]:
        """Returns picture id -> its place in a shard, the database's first. `read` reports faults."""
        return {sample.id: sample.picture for side in reversed(SIDES) for sample in self._samples[side][0]}

    def read(self, split: str) -> SplitRecords[ComposedRecord]:
        """Returns all queries, each with the pictures of its instance that have its text.

        Raises:
          UserError: shards are missing, a sample is faulty, or no query has a right picture; the message lists all.
        """
        (queries, faults), (database, more) = (self._samples[side] for side in SIDES)
        problems = [*faults, *more, *self._missing()]
        right: dict[tuple[str, str], dict[str, None]] = {}
        for sample in database:
            right.setdefault((sample.instance, sample.text), {})[sample.id] = None
        records = []
        for number, query in enumerate(queries):
            if not (truths := tuple(right.get((query.instance, query.text), ()))):
                problems.append(f"query {number} ({query.text[:80]!r}) has no right picture of {query.instance}")
                continue
            records.append(ComposedRecord(str(number), query.id, query.text, target=truths[0], truths=truths))
        check_problems(problems, f"Split '{split}' of {self.layout}")
        if not records:
            raise UserError(f"{self.folder} holds no queries; expected at least one.")
        return split_records(records)

    @functools.cached_property
    def _samples(self) -> dict[str, tuple[list[Sample], list[str]]]:
        """The samples of each side, and the problems of others."""
        parsed = {}
        for side, files in self._shards.items():
            make = functools.partial(_sample, side)
            records, problems = [], []
            for file in files:
                rows = ((key, members) for key, members in shards.samples(file))
                sound, faults = annotations.parse(rows, make, file=file.name)
                records, problems = records + sound, problems + faults
            parsed[side] = records, problems
        return parsed

    def _missing(self) -> Iterator[str]:
        """Yields a problem of each side whose shards hold other numbers of samples than the annotations have rows."""
        for side, file in zip(SIDES, self.annotation_files(), strict=True):
            lines = read_text(file, layout=self.layout, limits=LONG_LIST).splitlines()
            listed = sum(1 for line in lines if line.strip())
            held = sum(len(part) for part in self._samples[side])
            if held != listed:
                yield f"the shards of webdataset/{side} hold {held:,} samples, but {file.name} lists {listed:,}"


def _sample(side: str, number: int, row: Any) -> Iterator[Sample]:
    key, members = row
    picture = next((members[ending] for ending in ENDINGS if ending in members), None)
    if picture is None or "json" not in members:
        raise annotations.Fault(f"({key}) has {', '.join(sorted(members))}, expected a picture and json")
    if members["json"].size > MAX_JSON:
        raise annotations.Fault(
            f"({key}) has a json of {members['json'].size:,} bytes, expected img_path, text, instance"
        )
    try:
        about = parse_json(members["json"].read_bytes())
    except ValueError as error:
        raise annotations.Fault(f"({key}) has no JSON ({error})") from error
    instance = annotations.path(about, "instance")
    if "/" in instance or instance == QUERY:
        raise annotations.Fault(f"({key}) has {instance[:80]!r} for its instance, expected a name")
    path = annotations.path(about, "img_path")
    id = f"{instance if side == 'database' else QUERY}/{path}"
    yield Sample(id, annotations.words(about, "text").strip(), instance, picture)
