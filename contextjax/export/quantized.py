"""The int8 form of an export's parameters: matrices and tables with a scale for each output or row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SCALE = ".scale_of_int8"  # behind a parameter's name: the name of its scales
# The largest number. Where a CPU multiplies int8 without VNNI, two products of 8 and 8 bits overflow their sum of 16;
# of 8 and 7 bits, they do not.
LARGEST = 63


def quantize(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns named parameters with int8 and scales in place of kernels and of tables of tokens.

    A number is its int8 times the scale of its output (of a kernel) or of its row (of a table).
    """
    stored = {}
    for name, x in tensors.items():
        axes = _axes(name, x.ndim)
        if not axes:
            stored[name] = x
            continue
        scale = np.maximum(np.abs(x).max(axes, keepdims=True), np.finfo(np.float32).tiny * LARGEST) / LARGEST
        stored[name] = np.round(x / scale).astype(np.int8)
        stored[name + SCALE] = scale.astype(np.float32)
    return stored


def _axes(name: str, rank: int) -> tuple[int, ...]:
    """Returns the axes along which numbers have a scale in common; () for what stays float."""
    last = name.rpartition(".")[2]
    if last == "qkv_kernel":
        return (0,)
    if last == "kernel":
        return tuple(range(rank - 1))
    return (1,) if last == "embedding" else ()
