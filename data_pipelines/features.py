"""Cached features of candidate sets: encoded once, then trained on in seconds (ContextBLIP, stage 2b)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contextjax.files import whole_file
from contextjax.types import CandidateBatch, FeatureBatch
from data_pipelines.candidate_ops import CandidateSamples
from data_pipelines.tables import CandidateData

CHUNK = 64  # sets encoded at a time


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
    """The descriptions of a split as features of their candidates; a sample is the number of a description."""

    def __init__(self, features: FeatureBatch):
        """`features` has a row for each description of the split."""
        self._features = features

    def __len__(self) -> int:
        return len(self._features.records)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, samples: Sequence[int]) -> FeatureBatch:
        """Returns the features of a batch."""
        rows = np.asarray(samples)
        return FeatureBatch(*(column[rows] for column in self._features))

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
    from safetensors.numpy import save_file

    key = f"{system.fingerprint}/{data.identity}/{data.split}/{samples.candidates}/{len(samples)}"
    if (cached := _read(path, key)) is not None:
        return cached
    chunks = []
    for begin in range(0, len(samples), CHUNK):
        rows = range(begin, min(begin + CHUNK, len(samples)))
        batch: CandidateBatch = samples.collate([samples[row] for row in rows])
        encoded = system.set_features(list(batch.images), [data.records[row].text for row in rows])
        chunks.append(FeatureBatch(*encoded, batch.target, batch.valid, batch.ordered, batch.records))
    features = FeatureBatch(*(np.concatenate(column) for column in zip(*chunks, strict=True)))
    with whole_file(path) as partial:
        save_file(features._asdict(), partial, metadata={"key": key})
    return features


def _read(path: Path, key: str) -> FeatureBatch | None:
    """Returns the features that are cached under a key; None where there are none, or the file is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("key") == key:
                return FeatureBatch(*(file.get_tensor(name) for name in FeatureBatch._fields))
    except SafetensorError:
        return None
    return None
