"""The forms in which an index keeps embeddings: float32, bfloat16, or int8 with a scale for each embedding."""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

from contextjax.types import UserError

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "int8": np.dtype(np.int8)}


class Packed(NamedTuple):
    """Embeddings [N, D] as they are kept, and the factor of each: float32 [N], None for storages other than int8."""

    vectors: np.ndarray
    scales: np.ndarray | None

    def __getitem__(self, rows) -> Packed:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns some rows, by a slice, numbers, or a mask."""
        return Packed(self.vectors[rows], None if self.scales is None else self.scales[rows])


def pack(embeddings: np.ndarray, storage: str) -> Packed:
    """Returns float embeddings [N, D] as `storage` keeps them.

    int8 has 255 levels between minus and plus the largest value of each embedding.

    Raises:
      UserError: the storage is unknown, the shape is another one, or a value is not finite.
    """
    if storage not in DTYPES:
        raise UserError(f"The storage is '{storage}'; expected one of {', '.join(DTYPES)}.")
    if embeddings.ndim != 2:
        raise UserError(f"The embeddings have the shape {list(embeddings.shape)}; expected [N, D].")
    values = embeddings.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).any(axis=1).sum())
        raise UserError(f"{count} of {len(values)} embeddings hold values that are not finite; the model has diverged.")
    if storage != "int8":
        return Packed(values.astype(DTYPES[storage], copy=False), None)
    scales = np.abs(values).max(axis=1, initial=0) / np.float32(127)
    scales = np.where(scales > 0, scales, np.float32(1))
    return Packed(np.rint(values / scales[:, None]).astype(np.int8), scales)


def unpack(packed: Packed) -> np.ndarray:
    """Returns the embeddings as float32 [N, D]."""
    values = packed.vectors.astype(np.float32)
    return values if packed.scales is None else values * packed.scales[:, None]


def concatenate(blocks: list[Packed]) -> Packed:
    """Returns several blocks of embeddings of one storage, one after the other, as one."""
    scales = [block.scales for block in blocks if block.scales is not None]
    return Packed(np.concatenate([block.vectors for block in blocks]), np.concatenate(scales) if scales else None)
