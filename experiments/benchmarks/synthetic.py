"""Random inputs in the shapes of a config: batches for training, pictures and records for evaluation."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from contextjax.types import CandidateRecord, ComposedRecord


def synthetic_batch(shapes: Any, *, vocabulary: int, seed: int = 0) -> Any:
    """Returns a batch of random numpy arrays in `shapes` (an abstract_batch), all of it valid and nothing padded."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, x: Any) -> np.ndarray:
        name = getattr(path[-1], "name", "")
        if x.dtype == np.uint8:
            return rng.integers(0, 256, x.shape, np.uint8)
        if x.dtype == np.bool_:
            return np.full(x.shape, name != "ordered")
        if x.dtype == np.float32:
            return rng.normal(size=x.shape).astype(np.float32)
        if name == "ids":
            return rng.integers(3, vocabulary, x.shape, np.int32)
        if name == "span":
            return np.broadcast_to(np.asarray([1, 3], np.int32), x.shape)
        if name in ("target", "lost", "text"):  # the first candidate, no phrase, the first text of a group
            return np.zeros(x.shape, np.int32)
        first = shapes.reference_ids.shape[0] if name == "target_ids" else 0  # after those of the references
        return first + np.arange(math.prod(x.shape), dtype=np.int32).reshape(x.shape)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class SyntheticPictures:
    """Random pictures in the form of an evaluation's table."""

    def __init__(self, count: int, size: int, *, seed: int = 0):
        rng = np.random.default_rng(seed)
        self._pixels = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        self.ids = [f"picture-{i}" for i in range(count)]
        self.row = {name: i for i, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._pixels[row]


def composed_records(pictures: SyntheticPictures, count: int) -> list[ComposedRecord]:
    """Returns queries, each from a picture to the next one."""
    name = lambda i: pictures.ids[i % len(pictures)]
    return [
        ComposedRecord(str(i), reference=name(i), text=f"make it {i} shades bluer", target=name(i + 1))
        for i in range(count)
    ]


def candidate_records(pictures: SyntheticPictures, count: int, candidates: int) -> list[CandidateRecord]:
    """Returns descriptions, each of the first of its own `candidates` pictures."""
    sets = [tuple(pictures.ids[i * candidates : (i + 1) * candidates]) for i in range(count)]
    return [CandidateRecord(str(i), names, f"the one that is {i} shades bluer", 0) for i, names in enumerate(sets)]
