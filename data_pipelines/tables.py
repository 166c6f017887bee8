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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextjax import images
from contextjax.types import ComposedRecord, Picture, UserError
from data_pipelines.records import DatasetReader, check_problems

VERSION = "1.0.0"


class PictureTable(Sequence):
    """Pictures by row: decoded on access to uint8 [size, size, 3], kept while `cache_bytes` allows."""

    def __init__(self, source: Any, ids: list[str], *, size: int, cache_bytes: int = 0):
        self.ids = ids
        self.row = {id: row for row, id in enumerate(ids)}
        self.size = size
        self._source = source
        self._room = cache_bytes // (size * size * 3)
        self._cache: dict[int, Picture] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Picture:
        picture = self._cache.get(row)
        if picture is None:
            data = self._source[int(row)]["image"]
            picture = images.preprocess(images.decode(data, name=f"Picture {self.ids[row]}"), self.size)
            if len(self._cache) < self._room:
                self._cache[row] = picture
        return picture


@dataclasses.dataclass(frozen=True)
class ComposedData:
    """One split: pictures, captions by picture row ("" where there is none), records."""

    split: str
    pictures: PictureTable
    captions: tuple[str, ...]
    records: tuple[ComposedRecord, ...]
    folder: Path  # where the prepared tables are: caches go beside them

    @property
    def has_captions(self) -> bool:
        """Whether every picture has a caption."""
        return bool(self.captions) and all(self.captions)


def load_split(reader: DatasetReader, folder: Path, split: str, *, size: int, cache_bytes: int = 0) -> ComposedData:
    """The prepared tables of a split, prepared first where that has not been done.

    Args:
      reader: the data set's reader.
      folder: the data set's folder; tables go to its `prepared/`.
      split: one of reader.splits.
      size: side of the pictures in pixels.
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
    records = _prepare("records", reader, place, split)
    rows = records.__getitems__(list(range(len(records))))
    return ComposedData(
        split=split,
        pictures=PictureTable(pictures, table["ids"], size=size, cache_bytes=cache_bytes),
        captions=tuple(table["captions"]),
        records=tuple(_record(row) for row in rows),
        folder=place,
    )


def fingerprint(reader: DatasetReader) -> str:
    """Twelve hex digits that change when an annotation file does."""
    digest = hashlib.blake2b(VERSION.encode(), digest_size=6)
    for path in reader.annotation_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _prepare(kind: str, reader: DatasetReader, place: Path, split: str) -> Any:
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
    """tensorflow-datasets and the one builder of all composed sets (imported late: it takes a second)."""
    import tensorflow_datasets as tfds

    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    features = {
        "pictures": {"id": text, "image": tfds.features.Image()},
        "records": dict.fromkeys(("id", "reference", "target", "text", "kind"), text) | {"subset": texts},
    }

    class ComposedTable(tfds.core.GeneratorBasedBuilder):
        """Pictures or records of one split of a DatasetReader."""

        VERSION = tfds.core.Version(VERSION)

        def __init__(self, *, reader: DatasetReader, kind: str, split: str, place: Path, **rest: Any):
            self._reader, self._kind, self._split, self._place = reader, kind, split, place
            super().__init__(**rest)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features[self._kind]), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            generate = _picture_examples if self._kind == "pictures" else _record_examples
            return {"rows": generate(self._reader, self._split, self._place)}

        def _generate_examples(self):  # abstract in the base class; _split_generators names the generator
            raise NotImplementedError

    return tfds, ComposedTable


def _picture_examples(reader: DatasetReader, split: str, place: Path) -> Iterator[tuple[int, dict[str, Any]]]:
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
    if problems:
        try:
            reader.records(split)  # so that all there is to mend is told at once
        except UserError as error:
            problems.append(str(error))
    check_problems(problems, f"The pictures of split '{split}'")
    if not ids:
        raise UserError(f"Split '{split}' of {place.parent.parent} has no pictures; expected at least one.")
    write_atomically(
        place / f"pictures.{split}.json", json.dumps({"ids": ids, "captions": [captions.get(i, "") for i in ids]})
    )


def _record_examples(reader: DatasetReader, split: str, place: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, record in enumerate(reader.records(split)):
        yield row, {**dataclasses.asdict(record), "target": record.target or "", "subset": list(record.subset)}


def _record(row: dict[str, Any]) -> ComposedRecord:
    text: dict[str, Any] = {name: row[name].decode() for name in ("id", "reference", "target", "text", "kind")}
    text["target"] = text["target"] or None
    return ComposedRecord(**text, subset=tuple(member.decode() for member in row["subset"]))


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


def all_texts(data: ComposedData) -> list[str]:
    """Every modification text and caption, for training a tokenizer."""
    return [record.text for record in data.records] + [caption for caption in data.captions if caption]


def rows_by_reference(data: ComposedData) -> list[np.ndarray]:
    """Record rows of each reference picture, references in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for row, record in enumerate(data.records):
        groups.setdefault(record.reference, []).append(row)
    return [np.asarray(rows, np.int32) for rows in groups.values()]
