"""The data sets that a config or a protocol names, loaded; prepared where they are not."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from contextjax.files import local_path
from contextjax.types import CaptionRecord, ComposedRecord, EvaluationProtocol, UserError, printable
from data_pipelines import census
from data_pipelines.candidate_ops import cleaned
from data_pipelines.datasets import READERS
from data_pipelines.mixtures import Mixture, Source, mix, source_data
from data_pipelines.readers import for_training
from data_pipelines.records import check_problems
from data_pipelines.tables import SplitData, load_split, rows_by_reference


def load_data(config: Any, split: str, *, cache_mb: int = 0) -> SplitData:
    """Loads a split of the config's training set, or of each of its sources, and prepares what is not."""
    if config.data.sources:
        return _load_mixture(config, split, cache_mb=cache_mb)
    d = config.data
    return _some(_load_training(config, d.reader, d.folder, split, cache_mb=cache_mb), d.get("records", 0))


def _some(data: SplitData, count: int) -> SplitData:
    """Returns the data with `count` of the records, see data.records in configs/base.py; 0: with all."""
    every = len(data.records)
    if not 0 < count < every:
        return data
    rows = [i * every // count for i in range(count)]
    if isinstance(data.records[0], ComposedRecord):
        groups = rows_by_reference(data)
        drawn = np.random.default_rng(0).permutation(len(groups))
        rows = np.sort(np.concatenate([groups[i] for i in drawn])[:count]).tolist()
    return dataclasses.replace(data, records=tuple(data.records[row] for row in rows))


def _load_mixture(config: Any, split: str, *, cache_mb: int) -> Mixture[Any]:
    d = config.data
    if odd := [key for key in ("records", "cached") if d.get(key)]:
        raise UserError(
            f"data.{odd[0]} is set, but data.sources has several sets; it is for a single one: "
            "unset it, or give data.sources.NAME.records."
        )
    wanted = {name: source for name, source in d.sources.items() if source.weight}
    if not wanted:
        raise UserError(f"Every weight of data.sources ({', '.join(d.sources)}) is 0; give at least one above it.")
    sources = []
    for name, source in wanted.items():
        reader, folder = source.reader or name, source.folder or d.folder
        if not folder:
            raise UserError(
                f"data.sources.{name}.folder is empty; give it, as --config.data.sources.{name}.folder=DIR."
            )
        data = _load_training(config, reader, folder, split, cache_mb=cache_mb // len(wanted))
        sources.append(Source(name, Path(folder), _some(data, source.get("records", 0)), source.weight))
    return mix(sources)


def _load_training(config: Any, reader: str, folder: str, split: str, *, cache_mb: int) -> SplitData:
    bad_pictures = config.data.bad_pictures
    data = _load(config, reader, folder, split, cache_mb=cache_mb, bad_pictures=bad_pictures)
    if data.census["left_out"]:
        say(
            f"{len(data.census['left_out'])} bad pictures of split '{split}' and {data.census['records_left_out']} "
            f"records that name them are left out (data.bad_pictures); {data.folder} has a census."
        )
    records = tuple(for_training(data.records))
    if left_out := len(data.records) - len(records) + len(data.census["unknown"]):
        odd = [*census.oddities(data.census), *census.unknown(data.census)]
        say(f"{left_out:,} records of split '{split}' of {folder} are not trained on: {'; '.join(odd)}.")
    if not records:
        raise UserError(f"Split '{split}' of {folder} has no record with a text; there is nothing to train on.")
    return dataclasses.replace(data, records=records)


@functools.cache
def say(sentence: str) -> None:
    """Prints a sentence, once in a process: a command may load the same data several times."""
    print(printable(sentence), flush=True)


def data_hash(data: SplitData) -> str:
    """Returns twelve hex digits that change with the data's contents: annotations, pictures, and what is left out."""
    sources = [(s.split, s.identity, len(s.records)) for s in source_data(data)]
    return hashlib.blake2b(json.dumps(sources).encode(), digest_size=6).hexdigest()


def evaluated(config: Any) -> tuple[str, str]:
    """Returns the reader and the folder of the evaluation data, which may differ from the training data."""
    d = config.data
    return d.val_reader or d.reader, d.val_folder or d.folder


def load_evaluated(config: Any, split: str) -> SplitData:
    """Loads a split of the evaluation data."""
    data = _load(config, *evaluated(config), split)
    _check_asked(data, evaluated(config)[1])
    return data


def _load(config: Any, reader: str, folder: str, split: str, **options: Any) -> SplitData:
    vision = config.model.vision  # every size is in the section by now, see models.resolve_model
    size, fit = vision["image_size"], vision["fit"]
    data = load_folder(reader, folder, split, size=size, fit=fit, prepared=config.data.get("prepared", ""), **options)
    return cleaned(data) if config.data.get("clean") else data


def load_folder(
    reader: str, folder: str | Path, split: str, *, size: int, fit: str, cache_mb: int = 0, bad_pictures: str = "fail",
    prepared: str = "",
) -> SplitData:  # fmt: skip
    """Loads a split of a folder in the layout that `reader` knows. `prepared` is where its tables go, see prepare."""
    options = {"size": size, "fit": fit, "cache_bytes": cache_mb << 20, "bad_pictures": bad_pictures}
    data = load_split(make_reader(reader, folder), Path(folder), split, place=prepared, **options)
    for note in data.notes:
        say(note)
    return data


def make_reader(reader: str, folder: str | Path) -> Any:
    """Returns the reader of this name on a folder.

    Raises:
      UserError: there is no such reader.
    """
    if reader not in READERS:
        raise UserError(f"The reader is '{reader}'; known are {', '.join(READERS)}.")
    return READERS[reader](local_path(folder))


def load_parts(
    protocol: EvaluationProtocol,
    folder: str | Path,
    split: str,
    *,
    size: int,
    fit: str,
    clean: bool = False,
    prepared: str = "",
) -> dict[str, SplitData]:
    """Name -> data of the parts of a split that the protocol scores one by one; "" where it is whole."""
    splits = part_splits(protocol, folder, split)
    parts = {
        part: load_folder(protocol.reader, folder, name, size=size, fit=fit, prepared=prepared)
        for part, name in splits.items()
    }
    for data in parts.values():
        _check_asked(data, folder)
    parts = {part: as_queries(protocol, data) for part, data in parts.items()}
    return {part: cleaned(data) for part, data in parts.items()} if clean else parts


def as_queries(protocol: EvaluationProtocol, data: SplitData) -> SplitData:
    """Returns captions as queries for their pictures, which the protocol asks by the text alone; others as they are."""
    if READERS[protocol.reader].record_type is not CaptionRecord:
        return data
    counts: Counter[str] = Counter()
    asked = []
    for each in data.records:
        counts[each.image] += 1
        if not protocol.captions_per_picture or counts[each.image] <= protocol.captions_per_picture:
            asked.append(ComposedRecord(each.id, each.image, each.text, target=each.image))
    return dataclasses.replace(data, records=tuple(asked))


def _check_asked(data: SplitData, folder: str | Path) -> None:
    """Prints the oddities of an evaluation's records, which are scored like the others.

    Raises:
      UserError: some name unknown pictures and can't be scored; figures without them are not the benchmark's.
    """
    check_problems(data.census["unknown"], f"Split '{data.split}' of {folder}")
    if odd := census.oddities(data.census):
        say(f"Split '{data.split}' of {folder} is evaluated as it is, with {'; '.join(odd)}.")


def part_splits(protocol: EvaluationProtocol, folder: str | Path, split: str) -> dict[str, str]:
    """Name of each part -> the reader's split that it is.

    Raises:
      UserError: the folder is not in its layout, or lacks one.
    """
    known = make_reader(protocol.reader, folder).splits
    splits = {"": split}
    if protocol.parts and split not in known:
        splits = {part: f"{part}.{split}" for part in protocol.parts}
    if missing := [name for name in splits.values() if name not in known]:
        raise UserError(f"{folder} has no split '{missing[0]}' to evaluate; it has {', '.join(known)}.")
    return splits
