"""Cached features of a frozen model: encoded once, then trained on in seconds.

They are those of candidate sets (ContextBLIP's stage 2b), or of composed queries (CLIP4Cir's second stage).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contextjax.files import whole_file
from contextjax.types import CandidateBatch, FeatureBatch, FeaturePairs
from data_pipelines.candidate_ops import CandidateSamples
from data_pipelines.ops import ComposedSamples
from data_pipelines.tables import CandidateData, ComposedData

CHUNK = 64  # sets, or pictures, encoded at a time


class SetEncoder(Protocol):
    """A system that encodes candidate sets."""

    @property
    def fingerprint(self) -> str:
        """Identifies the model and its step."""
        ...

    def set_features(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns features [S, K, W], base scores [S, K] and texts [S, W]."""
        ...


class FeatureSamples:
    """The records of a split as features; a sample is the number of a record."""

    def __init__(self, features: FeatureBatch | FeaturePairs):
        """`features` has a row for each record of the split."""
        self._features = features

    def __len__(self) -> int:
        return len(self._features.records)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, samples: Sequence[int]) -> Any:
        """Returns the features of a batch."""
        rows = np.asarray(samples)
        return type(self._features)(*(column[rows] for column in self._features))

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """Returns nothing, since cut texts were reported when the features were made."""
        return []


def cached_features(system: SetEncoder, samples: CandidateSamples, data: CandidateData, path: Path) -> FeatureBatch:
    """Returns the features of all descriptions of a split, read from `path`, or made and written there.

    Args:
      system: the frozen model; nothing is encoded twice while its fingerprint is the same.
      samples: the samples of the split, without augmentation.
      data: the split.
      path: a safetensors file.
    """

    def make() -> FeatureBatch:
        chunks = []
        for begin in range(0, len(samples), CHUNK):
            rows = range(begin, min(begin + CHUNK, len(samples)))
            batch: CandidateBatch = samples.collate([samples[row] for row in rows])
            encoded = system.set_features(list(batch.images), [data.records[row].text for row in rows])
            chunks.append(FeatureBatch(*encoded, batch.target, batch.valid, batch.ordered, batch.records))
        return FeatureBatch(*(np.concatenate(column) for column in zip(*chunks, strict=True)))

    key = f"{system.fingerprint}/{data.identity}/{data.split}/{samples.candidates}/{len(samples)}"
    return _cached(path, key, FeatureBatch, make)


class PairEncoder(Protocol):
    """A system that encodes pictures and texts, each by itself, and does not normalise."""

    @property
    def fingerprint(self) -> str:
        """Identifies the model and its step."""
        ...

    @property
    def template(self) -> str:
        """The text around that of a query."""
        ...

    def image_features(self, images: Sequence[Any]) -> np.ndarray:
        """Returns [N, D]."""
        ...

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """Returns [N, D]."""
        ...


def cached_pairs(system: PairEncoder, samples: ComposedSamples, data: ComposedData, path: Path) -> FeaturePairs:
    """Returns the features of all composed queries of a split, read from `path`, or made and written there.

    Args:
      system: the frozen model; nothing is encoded twice while its fingerprint is the same.
      samples: the samples of the split, whose batches have the pictures' ids.
      data: the split.
      path: a safetensors file.
    """

    def make() -> FeaturePairs:
        references, targets, reference_ids, target_ids = samples.rows()
        used, places = np.unique(np.stack([references, targets]), return_inverse=True)
        chunks = [used[begin : begin + CHUNK] for begin in range(0, len(used), CHUNK)]
        images = np.concatenate([system.image_features([data.pictures[int(row)] for row in rows]) for rows in chunks])
        texts = system.text_features([record.text for record in data.records])
        of_references, of_targets = images[places.reshape(2, -1)]
        records = np.arange(len(data.records), dtype=np.int32)
        return FeaturePairs(of_references, texts, of_targets, reference_ids, target_ids, records)

    key = f"{system.fingerprint}/{system.template}/{data.identity}/{data.split}/{len(data.records)}"
    return _cached(path, key, FeaturePairs, make)


def _cached(path: Path, key: str, kind: Any, make: Callable[[], Any]) -> Any:
    """Returns the features, of a NamedTuple `kind`, that a file has under a key; otherwise makes and writes them."""
    from safetensors.numpy import save_file

    if (features := _read(path, key, kind)) is None:
        features = make()
        with whole_file(path) as partial:
            save_file(features._asdict(), partial, metadata={"key": key})
    return features


def _read(path: Path, key: str, kind: Any) -> Any:
    """Returns the features that are cached under a key; None where there are none, or the file is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("key") == key:
                return kind(*(file.get_tensor(name) for name in kind._fields))
    except SafetensorError:
        return None
    return None
