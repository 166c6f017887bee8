"""The placement of arrays: parameters and optimizer state by logical axis, batches by their first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from contextjax.sharding.mesh import BATCH_AXES, batch_parts, process_rows
from contextjax.types import UserError

RULES: Mapping[str, str | None] = {
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "projection": None,
}

# Of activations. A tower's width is whole on every device: kernels that are cut along it are gathered where they are
# used (fsdp), and what a block adds is summed over "heads" and "mlp" (tensor). "lookup" and "embed" are those of
# models.layers.embed_tokens, in between.
ACTIVATION_RULES: Mapping[str, tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "lookup": ("data",),
    "embed": ("fsdp",),
}


@contextlib.contextmanager
def activations(mesh: Mesh) -> Iterator[None]:
    """Places the activations of what is traced in the block by ACTIVATION_RULES; on one device, nothing changes."""
    if mesh.size == 1:
        # What is traced may ask what it will run on.
        with jax.set_mesh(mesh) if mesh.devices.flat[0].platform != jax.default_backend() else contextlib.nullcontext():
            yield
        return
    with jax.set_mesh(mesh), nn.logical_axis_rules(tuple(ACTIVATION_RULES.items())):
        yield


def logical_spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Returns the mesh axes of an array with logical `axes`, without those that a dimension does not divide by."""
    placed: list[str | None] = []
    for name, size in zip(axes, shape, strict=True):
        axis = RULES[name] if name else None
        placed.append(axis if axis and axis not in placed and size % mesh.shape[axis] == 0 else None)
    return PartitionSpec(*placed)


def state_shardings(abstract: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Returns the shardings of a tree (from eval_shape), whose parameters are boxed; the rest is replicated."""

    def place(leaf):
        if isinstance(leaf, nn.Partitioned) and not hasattr(leaf.value, "shape"):
            return leaf.value  # an optimizer's placeholder for a parameter that it leaves to another rule
        if isinstance(leaf, nn.Partitioned):
            return NamedSharding(mesh, logical_spec(leaf.names, leaf.value.shape, mesh))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map(place, abstract, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))


def init_sharded(init: Callable[[], Any], mesh: Mesh) -> tuple[Any, Any]:
    """Runs `init`, which returns a tree of boxed parameters, into its shardings; returns (unboxed tree, shardings)."""
    shardings = state_shardings(jax.eval_shape(init), mesh)
    return jax.jit(lambda: nn.unbox(init()), out_shardings=shardings)(), shardings


def place_params(unread: Any, abstract: Any, mesh: Mesh) -> Any:
    """Reads parameters one at a time, each straight into its sharding.

    Args:
      unread: tree of leaves with `shape` and `read() -> array`.
      abstract: tree (from eval_shape) of the same parameters, boxed with logical axes.
      mesh: where they go; every process reads all, and keeps what its devices hold.
    """
    return jax.tree.map(lambda leaf, sharding: place(leaf.read(), sharding), unread, state_shardings(abstract, mesh))


def place(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Places an array that every process has whole; each keeps what its devices hold."""
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def place_batch(batch: Any, mesh: Mesh, *, micro_batches: int = 1) -> Any:
    """Places a process's numpy batch as global arrays, cut along the first axis over the mesh's batch axes.

    The first axis holds what belongs to this process's `process_rows` of the global batch. In a single process, an
    array whose first axis does not divide is replicated. Several micro-batches are each placed so and stacked: arrays
    [micro_batches, ...].

    Raises:
      UserError: an array does not divide, and there are several processes, whose copies would differ.
    """
    parts, lead = batch_parts(mesh), (None,) if micro_batches > 1 else ()
    own = len(process_rows(mesh, parts))

    def placed(x):
        x = x.reshape(micro_batches, -1, *x.shape[1:]) if lead else x
        before, count, after = x.shape[: len(lead)], x.shape[len(lead)], x.shape[len(lead) + 1 :]
        cut = count % own == 0
        if not cut and own < parts:
            raise UserError(f"An axis of {count} rows a process does not divide into {own} parts; change the batch.")
        sharding = NamedSharding(mesh, PartitionSpec(*lead, BATCH_AXES if cut else None))
        return jax.make_array_from_process_local_data(sharding, x, (*before, count * parts // own, *after))

    return jax.tree.map(placed, batch)


def abstract_state(init: Callable[[], Any], mesh: Mesh) -> tuple[Any, Any]:
    """Returns the result of init_sharded as shapes with their shardings, without computing anything."""
    abstract = jax.eval_shape(init)
    shardings = state_shardings(abstract, mesh)
    on = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(on, nn.unbox(abstract), shardings), shardings


def place_abstract(batch: Any, mesh: Mesh, *, micro_batches: int = 1) -> Any:
    """Returns a global batch of shapes with the shapes and shardings that place_batch gives its arrays."""
    parts, lead = batch_parts(mesh), (None,) if micro_batches > 1 else ()

    def on(x):
        shape = (micro_batches, x.shape[0] // micro_batches, *x.shape[1:]) if lead else x.shape
        spec = PartitionSpec(*lead, BATCH_AXES if shape[len(lead)] % parts == 0 else None)
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(on, batch)
