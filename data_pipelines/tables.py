"""A prepared split in memory: pictures, decoded on access, and records (ids and texts)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np

from contextjax import images
from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, Picture, PictureBoxes
from data_pipelines.prepare import prepare
from data_pipelines.readers import DatasetReader
from data_pipelines.records import Record


class PictureTable(Sequence):
    """Pictures by row: decoded on access to uint8 [size, size, 3], and kept while `cache_bytes` allows.

    Attributes:
      ids: ids of the pictures, by row.
      row: id -> row.
      size: side in pixels.
      fit: how pictures are made square, see images.preprocess.
    """

    def __init__(
        self,
        encoded: Sequence[Mapping[str, bytes]],
        ids: list[str],
        *,
        size: int,
        fit: str = "crop",
        cache_bytes: int = 0,
    ):
        """`encoded` holds {"image": encoded bytes} for each of the `ids`."""
        self.ids = ids
        self.row = {id: row for row, id in enumerate(ids)}
        self.size, self.fit = size, fit
        self._encoded = encoded
        self._cache_rows = cache_bytes // (size * size * 3)
        self._cache: dict[int, Picture] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, name: str) -> bytes:
        """Returns the bytes of a picture's file, or of the region that the picture is."""
        return self._encoded[self.row[name]]["image"]

    def __getitem__(self, row: int) -> Picture:
        picture = self._cache.get(row)
        if picture is None:
            decoded = images.decode(self._encoded[int(row)]["image"], name=f"Picture {self.ids[row]}")
            picture = images.preprocess(decoded, self.size, fit=self.fit)
            if len(self._cache) < self._cache_rows:
                self._cache[row] = picture
        return picture

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}}  # a loader process keeps its own


@dataclasses.dataclass(frozen=True)
class SplitData(Generic[Record]):
    """One split.

    Attributes:
      split: the name of the split.
      pictures: the pictures.
      captions: by picture row; "" where there is none.
      records: the records.
      folder: the folder of the prepared tables, beside which caches are kept.
      census: see census.lines.
      notes: see Prepared.
    """

    split: str
    pictures: PictureTable
    captions: tuple[str, ...]
    records: tuple[Record, ...]
    folder: Path
    census: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Another text for other annotations or pictures; of the same contents the same one, wherever they are."""
        return f"{self.folder.name}-{self.census['made_with']}"

    @property
    def has_captions(self) -> bool:
        """True if every picture has a caption."""
        return bool(self.captions) and all(self.captions)


ComposedData = SplitData[ComposedRecord]
CandidateData = SplitData[CandidateRecord]
CaptionData = SplitData[CaptionRecord]


def load_split(
    reader: DatasetReader[Record], folder: Path, split: str, *, size: int, fit: str = "crop", cache_bytes: int = 0,
    bad_pictures: str = "fail", place: str | Path = "",
) -> SplitData[Record]:  # fmt: skip
    """Loads a split, which is prepared first where that has not been done.

    Args:
      reader: the data set's reader.
      folder: the data set's folder.
      split: one of reader.splits.
      size: side of the pictures in pixels.
      fit: how pictures are made square, see images.preprocess.
      cache_bytes: how many bytes of decoded pictures may stay in memory.
      bad_pictures: "fail" or "skip", see prepare; for evaluation always "fail".
      place: where the tables go, see prepare.

    Raises:
      UserError: the split is unknown, or the data set has problems; the message lists all of them.

    Example:
      >>> load_split(CirrReader("data/pictograms/cirr"), Path("data/pictograms/cirr"), "val", size=64)
    """
    prepared = prepare(reader, folder, split, bad_pictures=bad_pictures, place=place)
    return SplitData(
        split=split,
        pictures=PictureTable(prepared.pictures, prepared.ids, size=size, fit=fit, cache_bytes=cache_bytes),
        captions=tuple(prepared.captions),
        records=tuple(_record(reader.record_type, row) for row in prepared.records),
        folder=prepared.place,
        census=prepared.census,
        notes=prepared.notes,
    )


def _record(record_type: type[Record], row: dict[str, Any]) -> Record:
    values = json.loads(row["record"])
    fields: dict[str, Any] = {name: _tuples(value) for name, value in values.items()}
    if fields.get("boxes"):
        fields["boxes"] = PictureBoxes(*fields["boxes"])
    return record_type(**fields)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def all_texts(data: SplitData[Any]) -> list[str]:
    """Returns every record's text and every caption, for training a tokenizer."""
    return [record.text for record in data.records] + [caption for caption in data.captions if caption]


def rows_by_reference(data: ComposedData) -> list[np.ndarray]:
    """Returns the record rows of each reference picture, references in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(data.records):
        groups.setdefault(record.reference, []).append(row)
    return [np.asarray(rows, np.int32) for rows in groups.values()]
