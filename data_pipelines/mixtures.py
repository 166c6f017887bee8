"""Several data sets as one training set: their tables in a row, and how often each is seen in an epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.types import Picture, UserError
from data_pipelines.loader import Share
from data_pipelines.records import Record, with_renamed_pictures
from data_pipelines.tables import PictureTable, SplitData


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set of a mixture.

    Attributes:
      name: prefix of the source's ids.
      folder: two sources of one folder mean the same picture by the same id.
      data: the split.
      weight: how often each sample is seen in an epoch, see loader.Share.
    """

    name: str
    folder: Path
    data: SplitData[Any]
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Mixture(SplitData[Record]):
    """The tables of several sources as one. Ids are "<source>/<id>"; a picture that two sources share is there once."""

    sources: tuple[Source, ...] = ()


def mix(sources: Sequence[Source]) -> Mixture[Any]:
    """Makes one training set of several.

    Args:
      sources: at least one, with records of one type and pictures of one size.

    Raises:
      UserError: a source has records of another type than the first, or a weight that is not above 0.
    """
    first = sources[0]
    kinds = [type(source.data.records[0]) for source in sources]
    for source, kind in zip(sources, kinds, strict=True):
        if kind is not kinds[0]:
            raise UserError(
                f"data.sources mixes {kind.__name__}s of '{source.name}' with {kinds[0].__name__}s of '{first.name}'; "
                "expected sources of one kind."
            )
        if not 0 < source.weight < float("inf"):
            raise UserError(
                f"data.sources.{source.name}.weight is {source.weight}; expected how often its samples are seen in an "
                "epoch, such as 1, or 0 to leave them out."
            )
    owner: dict[str, str] = {}  # folder -> the first source that has its pictures
    for source in sources:
        owner.setdefault(str(source.folder.resolve()), source.name)
    names = [owner[str(source.folder.resolve())] for source in sources]
    pictures = MixedPictures([source.data.pictures for source in sources], names)
    captions = [""] * len(pictures)
    records: list[Any] = []
    for name, source in zip(names, sources, strict=True):
        for id, caption in zip(source.data.pictures.ids, source.data.captions, strict=True):
            row = pictures.row[f"{name}/{id}"]
            captions[row] = captions[row] or caption
        for record in source.data.records:
            renamed = with_renamed_pictures(record, lambda id, name=name: f"{name}/{id}")
            records.append(dataclasses.replace(renamed, id=f"{source.name}/{record.id}"))
    return Mixture(
        split=first.data.split,
        pictures=pictures,
        captions=tuple(captions),
        records=tuple(records),
        folder=first.data.folder,
        sources=tuple(sources),
    )


class MixedPictures(PictureTable):
    """The pictures of several tables of one size. Pictures with the same prefixed id are one picture."""

    def __init__(self, tables: Sequence[PictureTable], names: Sequence[str]):
        places: dict[str, tuple[PictureTable, int]] = {}
        for table, name in zip(tables, names, strict=True):
            for row, id in enumerate(table.ids):
                places.setdefault(f"{name}/{id}", (table, row))
        self.ids, self._places = list(places), list(places.values())  # of each row: (table, row there)
        self.row = {id: row for row, id in enumerate(self.ids)}
        self.size, self.fit = tables[0].size, tables[0].fit

    def __getitem__(self, row: int) -> Picture:
        table, own = self._places[int(row)]
        return table[own]


def source_data(data: SplitData[Record]) -> tuple[SplitData[Record], ...]:
    """Returns the data of a mixture's sources, in the order of the records; of any other split, the split itself."""
    return tuple(source.data for source in data.sources) if isinstance(data, Mixture) else (data,)


def source_rows(data: SplitData[Any]) -> np.ndarray:
    """Returns the source that each record comes from, int [records]; 0 for all of a split that is no mixture."""
    counts = [len(source.records) for source in source_data(data)]
    return np.repeat(np.arange(len(counts)), counts)


def shares_of(data: SplitData[Any], records: Sequence[int]) -> tuple[Share, ...]:
    """Returns the sources' shares of samples that are in the order of the records, each of one source.

    Args:
      data: a mixture, or any other split.
      records: a record of each sample.
    """
    counts = np.bincount(source_rows(data)[np.asarray(records, int)])
    weights = [source.weight for source in data.sources] if isinstance(data, Mixture) else [1.0]
    return tuple(Share(int(count), weight) for count, weight in zip(counts, weights, strict=True))
