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
    """What caching needs of a system."""

    @property
    def fingerprint(self) -> str:
        """Which model at which step it is."""
        ...

    def set_features(
        self, sets: Sequence[Sequence[Any]], texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [S, K, W], base scores [S, K] and texts [S, W]."""
        ...


class FeatureSamples:
    """The descriptions of a split as features of their candidates: a sample is a row."""

    def __init__(self, table: FeatureBatch):
        """`table` holds all descriptions."""
        self._table = table

    def __len__(self) -> int:
        return len(self._table.records)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, samples: Sequence[int]) -> FeatureBatch:
        """The rows of a batch."""
        rows = np.asarray(samples)
        return FeatureBatch(*(column[rows] for column in self._table))

    def truncations(self) -> list[tuple[str, int, int, str]]:
        """None: what was cut was told when the features were made."""
        return []


def cached_features(system: SetEncoder, samples: CandidateSamples, data: CandidateData, path: Path) -> FeatureBatch:
    """The features of all of a split's descriptions, read from `path`, or made and written there.

    Args:
      system: the frozen model; what it encoded once is not encoded again while its fingerprint is the same.
      samples: of the split, without augmentation: targets, order and which candidates are real.
      data: the split.
      path: a safetensors file.
    """
    from safetensors.numpy import save_file

    key = f"{system.fingerprint}/{data.folder.name}/{data.split}/{samples.candidates}/{len(samples)}"
    if (found := _read(path, key)) is not None:
        return found
    parts = []
    for begin in range(0, len(samples), CHUNK):
        rows = range(begin, min(begin + CHUNK, len(samples)))
        batch: CandidateBatch = samples.collate([samples[row] for row in rows])
        found = system.set_features(list(batch.images), [data.records[row].text for row in rows])
        parts.append(FeatureBatch(*found, batch.target, batch.valid, batch.ordered, batch.records))
    table = FeatureBatch(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    with whole_file(path) as partial:
        save_file(table._asdict(), partial, metadata={"key": key})
    return table


def _read(path: Path, key: str) -> FeatureBatch | None:
    """What is cached under this key; None where nothing is, or the file is not whole."""
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
