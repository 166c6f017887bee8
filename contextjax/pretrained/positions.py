"""Resizes position embeddings to another resolution."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

CUBIC = -0.75  # PyTorch's bicubic; jax.image.resize uses -0.5, which gives other numbers


def resize_positions(
    table: Float[np.ndarray, "n width"], patches: int, *, first: int = 1
) -> Float[np.ndarray, "m width"]:
    """Resizes a ViT's position table [first + side², width] to another square number of patches.

    `first` is 1 with a class token, which comes first and is kept, and 0 without.

    The result equals PyTorch's bicubic interpolation (align_corners=False, no antialiasing), by which published models
    were resized.
    """
    old, new = math.isqrt(len(table) - first), math.isqrt(patches)
    if old == new:
        return table
    weights = _weights(old, new)
    grid = table[first:].reshape(old, old, -1).astype(np.float64)
    grid = np.einsum("ia,jb,abw->ijw", weights, weights, grid, optimize=True)
    return np.concatenate([table[:first], grid.reshape(new * new, -1)]).astype(table.dtype)


def _weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Returns the weight of each old position in each new one; positions past the border count as the border."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        distance = np.abs(centre - (first + offset))
        near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
        far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
        np.add.at(matrix, (np.arange(new), np.clip(first + offset, 0, old - 1)), weight)
    return matrix
