"""A data set as two prepared tables: pictures (id -> encoded bytes, each once) and records (ids and texts).

Prepared with tensorflow-datasets (without TensorFlow) into array_record files beside the data, under
a fingerprint of the annotation files: changed annotations are prepared anew, unchanged ones never twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np

from contextjax import images
from contextjax.types import CandidateRecord, CaptionRecord, ComposedRecord, Picture, UserError
from data_pipelines.records import DatasetReader, Record, check_problems

VERSION = "1.1.0"


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


@dataclasses.dataclass(frozen=True)
class SplitData(Generic[Record]):
    """One split: pictures, captions by picture row ("" where there is none), records."""

    split: str
    pictures: PictureTable
    captions: tuple[str, ...]
    records: tuple[Record, ...]
    folder: Path  # where the prepared tables are: caches go beside them

    @property
    def has_captions(self) -> bool:
        """Whether every picture has a caption."""
        return bool(self.captions) and all(self.captions)


ComposedData = SplitData[ComposedRecord]
CandidateData = SplitData[CandidateRecord]
CaptionData = SplitData[CaptionRecord]


def load_split(
    reader: DatasetReader[Record], folder: Path, split: str, *, size: int, fit: str = "crop", cache_bytes: int = 0
) -> SplitData[Record]:
    """The prepared tables of a split, prepared first where that has not been done.

    Args:
      reader: the data set's reader.
      folder: the data set's folder; tables go to its `prepared/`.
      split: one of reader.splits.
      size: side of the pictures in pixels.
      fit: how they are made square, see images.preprocess.
      cache_bytes: how many bytes of decoded pictures may stay in memory.

    Raises:
      UserError: an unknown split, or problems of the data set, all of them at once.
    """
    if split not in reader.splits:
        raise UserError(f"{folder} has no split '{split}'; it has {', '.join(reader.splits)}.")
    place = folder / "prepared" / fingerprint(reader)
    pictures = _prepare("pictures", reader, place, split)
    # Captions and ids are wanted at once, pictures one by one: the first is a small JSON, the second array_record.
    table = json.loads((place / f"pictures.{split}.json").read_text(encoding="utf-8"))
    # A folder of other records may be read as captions too: in a table beside theirs, with the same pictures.
    kind = "captions" if reader.record_type is CaptionRecord else "records"
    records = _prepare(kind, reader, place, split)
    rows = records.__getitems__(list(range(len(records))))
    return SplitData(
        split=split,
        pictures=PictureTable(pictures, table["ids"], size=size, fit=fit, cache_bytes=cache_bytes),
        captions=tuple(table["captions"]),
        records=tuple(_record(reader.record_type, row) for row in rows),
        folder=place,
    )


def fingerprint(reader: DatasetReader[Any]) -> str:
    """Twelve hex digits that change when an annotation file does."""
    digest = hashlib.blake2b(VERSION.encode(), digest_size=6)
    for path in reader.annotation_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _prepare(kind: str, reader: DatasetReader[Any], place: Path, split: str) -> Any:
    """A random-access source of the prepared table; prepares it where it is missing."""
    tfds, builder_class = _builder_class()
    config = tfds.core.BuilderConfig(name=f"{kind}_{split}")
    with _quiet():
        builder = builder_class(
            reader=reader,
            kind=kind,
            split=split,
            place=place,
            config=config,
            data_dir=place,
            file_format="array_record",
        )
        builder.download_and_prepare()
        decoders = {"image": tfds.decode.SkipDecoding()} if kind == "pictures" else None
        return builder.as_data_source(split="rows", decoders=decoders)


@functools.cache
def _builder_class() -> tuple[Any, Any]:
    """tensorflow-datasets and the one builder of all tables (imported late: it takes a second)."""
    import tensorflow_datasets as tfds

    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    columns: dict[Any, Any] = {
        str: text,
        str | None: text,
        int | None: tfds.features.Scalar(np.int64),
        tuple[str, ...]: texts,
    }

    class Table(tfds.core.GeneratorBasedBuilder):
        """Pictures or records of one split of a DatasetReader."""

        name = "composed_table"  # a folder's name since the first tables: another one would prepare them anew
        VERSION = tfds.core.Version(VERSION)

        def __init__(self, *, reader: DatasetReader[Any], kind: str, split: str, place: Path, **rest: Any):
            self._reader, self._kind, self._split, self._place = reader, kind, split, place
            super().__init__(**rest)

        def _info(self):
            features = {"id": text, "image": tfds.features.Image()}
            if self._kind != "pictures":
                features = {name: columns[kind] for name, kind in _fields(self._reader.record_type).items()}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            generate = _picture_examples if self._kind == "pictures" else _record_examples
            return {"rows": generate(self._reader, self._split, self._place)}

        def _generate_examples(self):  # abstract in the base class; _split_generators names the generator
            raise NotImplementedError

    return tfds, Table


def _picture_examples(reader: DatasetReader[Any], split: str, place: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Encoded bytes of every picture; each is decoded once, to find the unreadable ones before training does."""
    captions = reader.captions(split)
    ids, problems = [], []
    for row, (name, path) in enumerate(reader.pictures(split).items()):
        try:
            data = path.read_bytes()
            images.decode(data, name=f"Picture {name}")
        except OSError:
            problems.append(f"{name} has no file {path}")
            continue
        except UserError as error:
            problems.append(str(error))
            continue
        ids.append(name)
        yield row, {"id": name, "image": io.BytesIO(data)}
    try:
        reader.records(split)  # all there is to mend is told at once, and no pictures are kept that don't fit records
    except UserError as error:
        if not problems:
            raise
        problems.append(str(error))
    check_problems(problems, f"The pictures of split '{split}'")
    if not ids:
        raise UserError(f"Split '{split}' of {place.parent.parent} has no pictures; expected at least one.")
    write_atomically(
        place / f"pictures.{split}.json", json.dumps({"ids": ids, "captions": [captions.get(i, "") for i in ids]})
    )


def _record_examples(reader: DatasetReader[Any], split: str, place: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    fields = _fields(reader.record_type)
    for row, record in enumerate(reader.records(split)):
        yield row, {name: _encode(getattr(record, name), kind) for name, kind in fields.items()}


def _record(record_type: type[Record], row: dict[str, Any]) -> Record:
    return record_type(**{name: _decode(row[name], kind) for name, kind in _fields(record_type).items()})


@functools.cache
def _fields(record_type: type) -> dict[str, Any]:
    """Name -> type of a record's fields: what its table has for columns."""
    return typing.get_type_hints(record_type)


def _encode(value: Any, kind: Any) -> Any:
    """A field as its column keeps it, which knows no None."""
    if value is None:
        return -1 if kind == int | None else ""
    return list(value) if isinstance(value, tuple) else value


def _decode(value: Any, kind: Any) -> Any:
    if kind == int | None:
        return int(value) if value >= 0 else None
    if kind == tuple[str, ...]:
        return tuple(member.decode() for member in value)
    return value.decode() or ("" if kind is str else None)


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """tensorflow-datasets without its progress bars and its lines of log."""
    import logging

    import tensorflow_datasets as tfds
    from absl import logging as absl_logging

    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(before)


def all_texts(data: SplitData[Any]) -> list[str]:
    """Every record's text and every caption, for training a tokenizer."""
    return [record.text for record in data.records] + [caption for caption in data.captions if caption]


def rows_by_reference(data: ComposedData) -> list[np.ndarray]:
    """Record rows of each reference picture, references in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(data.records):
        groups.setdefault(record.reference, []).append(row)
    return [np.asarray(rows, np.int32) for rows in groups.values()]
