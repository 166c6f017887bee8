"""Meshes from one line of config: "data:4,fsdp:2,tensor:1"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from contextjax.types import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # the axes a batch is cut over


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """Returns the sizes of all axes; one may be -1 and takes the devices that the others leave.

    Raises:
      UserError: an unknown axis, no number, or a product that is not the number of devices.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition(":")
        if name not in AXES or name in sizes or not re.fullmatch(r"-1|[1-9][0-9]*", size, re.ASCII):
            raise UserError(
                f"mesh is '{text}'; expected axes out of {', '.join(AXES)}, each once, with sizes, as 'data:4,fsdp:2'."
            )
        sizes[name] = int(size)
    sizes = {axis: sizes.get(axis, 1) for axis in AXES}
    free = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size > 0)
    if len(free) > 1 or devices % fixed or (not free and fixed != devices):
        raise UserError(
            f"mesh '{text}' needs {'a divisor' if free else f'{fixed}'} of devices, but there are {devices}; "
            "choose sizes whose product is the number of devices (one may be -1)."
        )
    return {name: devices // fixed if size == -1 else size for name, size in sizes.items()}


def make_mesh(text: str, *, devices: int | Sequence[Any] | None = None) -> Mesh:
    """Makes a mesh of all devices, of the first `devices` of them, or of a given list."""
    used = jax.devices()[:devices] if devices is None or isinstance(devices, int) else list(devices)
    sizes = parse_mesh(text, len(used))
    return Mesh(_laid_out(tuple(sizes.values()), used), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _laid_out(sizes: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Returns devices as an array of the mesh's sizes, so that neighbours along an axis are near one another.

    Physical axes of a TPU's torus are split only where no assignment of whole ones fits. Over several TPU slices, which
    a slower network joins, the first axes that divide are laid across the slices: data before fsdp before tensor.
    """
    slices = {device.slice_index for device in devices if getattr(device, "slice_index", None) is not None}
    if devices[0].platform != "tpu" or len(slices) < 2:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    across, left = [], len(slices)
    for size in sizes:
        across.append(math.gcd(size, left))
        left //= across[-1]
    within = tuple(size // outer for size, outer in zip(sizes, across, strict=True))
    return mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)


def mesh_of(tree: Any) -> Mesh | None:
    """Returns the mesh that arrays have been placed on; None where they are on one device."""
    mesh = getattr(getattr(jax.tree.leaves(tree)[0], "sharding", None), "mesh", None)
    return mesh if mesh is not None and mesh.size > 1 else None


def batch_parts(mesh: Mesh) -> int:
    """Returns the number of parts that a batch is cut into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: Mesh, batch_size: int, *, micro_batches: int = 1) -> None:
    """Checks that each micro-batch divides over the mesh's batch axes.

    Raises:
      UserError: it does not, or there is none.
    """
    if micro_batches < 1:
        raise UserError(f"training.micro_batches is {micro_batches}; expected 1 or more.")
    parts = batch_parts(mesh) * micro_batches
    if batch_size % parts:
        in_turn = f", {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise UserError(
            f"batch_size is {batch_size}, but the mesh cuts a batch into {parts} parts ({dict(mesh.shape)}{in_turn}); "
            f"choose a multiple of {parts}."
        )


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns int [rows], the rows of a global batch that this process's devices hold, ascending.

    Processes may share rows.

    Raises:
      UserError: the batch does not divide over the mesh's batch axes.
    """
    check_batch(mesh, batch_size)
    held = NamedSharding(mesh, PartitionSpec(BATCH_AXES)).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values() if index is not None]))
