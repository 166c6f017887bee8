"""How an index keeps embeddings: float32, bfloat16, or int8 with a scale for each."""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

from contextjax.types import UserError

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "int8": np.dtype(np.int8)}


class Packed(NamedTuple):
    """Embeddings [N, D] as they are kept, and what each is to be multiplied with: float32 [N], None but for int8."""

    vectors: np.ndarray
    scales: np.ndarray | None

    def __getitem__(self, rows) -> Packed:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Some rows: a slice, numbers, or a mask."""
        return Packed(self.vectors[rows], None if self.scales is None else self.scales[rows])


def pack(embeddings: np.ndarray, storage: str) -> Packed:
    """Embeddings [N, D] of floats as `storage` keeps them.

    int8 has 255 levels between minus and plus the largest value of each embedding.

    Raises:
      UserError: an unknown storage, another shape, or a value that is not finite.
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
    """float32 [N, D]."""
    values = packed.vectors.astype(np.float32)
    return values if packed.scales is None else values * packed.scales[:, None]


def concatenate(parts: list[Packed]) -> Packed:
    """All of some parts of one storage."""
    scales = [part.scales for part in parts if part.scales is not None]
    return Packed(np.concatenate([part.vectors for part in parts]), np.concatenate(scales) if scales else None)
