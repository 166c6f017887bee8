"""A data set as two prepared tables: pictures (id -> encoded bytes, each once) and records (ids and texts)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np

from contextjax import images
from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, Picture
from data_pipelines.prepare import prepare
from data_pipelines.readers import DatasetReader
from data_pipelines.records import Record


class PictureTable(Sequence):
    """Pictures by row: decoded on access to uint8 [size, size, 3], kept while `cache_bytes` allows."""

    def __init__(self, source: Any, ids: list[str], *, size: int, fit: str = "crop", cache_bytes: int = 0):
        self.ids = ids
        self.row = {id: row for row, id in enumerate(ids)}
        self.size, self.fit = size, fit
        self._source = source
        self._room = cache_bytes // (size * size * 3)
        self._cache: dict[int, Picture] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Picture:
        picture = self._cache.get(row)
        if picture is None:
            data = self._source[int(row)]["image"]
            decoded = images.decode(data, name=f"Picture {self.ids[row]}")
            picture = images.preprocess(decoded, self.size, fit=self.fit)
            if len(self._cache) < self._room:
                self._cache[row] = picture
        return picture

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}}  # a loader process keeps its own


@dataclasses.dataclass(frozen=True)
class SplitData(Generic[Record]):
    """One split: pictures, captions by picture row ("" where there is none), records."""

    split: str
    pictures: PictureTable
    captions: tuple[str, ...]
    records: tuple[Record, ...]
    folder: Path  # where the prepared tables are: caches go beside them
    census: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what preparation found, see census.lines

    @property
    def has_captions(self) -> bool:
        """Whether every picture has a caption."""
        return bool(self.captions) and all(self.captions)


ComposedData = SplitData[ComposedRecord]
CandidateData = SplitData[CandidateRecord]
CaptionData = SplitData[CaptionRecord]


def load_split(
    reader: DatasetReader[Record], folder: Path, split: str, *, size: int, fit: str = "crop", cache_bytes: int = 0,
    bad_pictures: str = "fail",
) -> SplitData[Record]:  # fmt: skip
    """The prepared tables of a split, prepared first where that has not been done.

    Args:
      reader: the data set's reader.
      folder: the data set's folder; tables go to its `prepared/`.
      split: one of reader.splits.
      size: side of the pictures in pixels.
      fit: how they are made square, see images.preprocess.
      cache_bytes: how many bytes of decoded pictures may stay in memory.
      bad_pictures: "fail" or "skip", see prepare; a gallery that is evaluated on always fails.

    Raises:
      UserError: an unknown split, or problems of the data set, all of them at once.
    """
    found = prepare(reader, folder, split, bad_pictures=bad_pictures)
    return SplitData(
        split=split,
        pictures=PictureTable(found.pictures, found.ids, size=size, fit=fit, cache_bytes=cache_bytes),
        captions=tuple(found.captions),
        records=tuple(_record(reader.record_type, row) for row in found.records),
        folder=found.place,
        census=found.census,
    )


def _record(record_type: type[Record], row: dict[str, Any]) -> Record:
    values = json.loads(row["record"])
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return record_type(**fields)


def all_texts(data: SplitData[Any]) -> list[str]:
    """Every record's text and every caption, for training a tokenizer."""
    return [record.text for record in data.records] + [caption for caption in data.captions if caption]


def rows_by_reference(data: ComposedData) -> list[np.ndarray]:
    """Record rows of each reference picture, references in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(data.records):
        groups.setdefault(record.reference, []).append(row)
    return [np.asarray(rows, np.int32) for rows in groups.values()]
