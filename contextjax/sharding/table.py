"""The table of placement: bytes of a tree of arrays, on a whole mesh and on each device. Nothing is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextjax.types import TrainState


class Placement(NamedTuple):
    """An array, or several of one group, on a mesh."""

    path: tuple[str, ...]  # names from the root of the tree
    shape: tuple[int, ...]  # of one array; () for a group
    arrays: int
    bytes: int  # of all of it, held once
    device_bytes: int  # on each device
    axes: tuple[str, ...]  # the mesh axes that it is cut over


def placements(tree: Any, shardings: Any = None) -> list[Placement]:
    """Returns a row for each array of a tree.

    Args:
      tree: arrays or what eval_shape gives, boxed with logical axes or not.
      shardings: a tree of them, as state_shardings gives; None: the arrays' own.
    """
    leaves = jax.tree_util.tree_flatten_with_path(nn.unbox(tree))[0]
    where = [leaf.sharding for _, leaf in leaves] if shardings is None else jax.tree.leaves(shardings)
    return [_placement(path, leaf, sharding) for (path, leaf), sharding in zip(leaves, where, strict=True)]


def grouped(rows: Iterable[Placement], group: Callable[[tuple[str, ...]], tuple[str, ...]]) -> list[Placement]:
    """Returns the rows summed by group, which `group` makes of a path, in order of first appearance."""
    groups: dict[tuple[str, ...], list[Placement]] = {}
    for row in rows:
        groups.setdefault(group(row.path), []).append(row)
    return [_sum(path, members) for path, members in groups.items()]


def placement_table(state: TrainState, shardings: Any = None) -> str:
    """Returns the bytes of each part of the model and its optimizer state, on the mesh and on a device, as text.

    A part without optimizer state is frozen. The optimizer's counters are in its total.

    Args:
      state: arrays, or what eval_shape gives.
      shardings: see `placements`.
    """
    at = lambda name: None if shardings is None else getattr(shardings, name)
    params, moments = placements(state.params, at("params")), placements(state.opt_state, at("opt_state"))
    parts = grouped(params, _part)
    names = {part.path for part in parts}
    moments_of = {row.path: row for row in grouped(moments, lambda path: _part_within(path, names))}
    nothing = Placement((), (), 0, 0, 0, ())
    lines = [("", "arrays", "parameters", "a device", "optimizer", "a device", "cut over")]
    lines += [_line("/".join(part.path), part, moments_of.get(part.path, nothing)) for part in parts]
    lines.append(_line("all", _sum((), params), _sum((), moments)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {'  '.join(f'{x:>{w}}' for x, w in zip(rest, widths[1:], strict=True))}".rstrip()
        for name, *rest in lines
    )


def _placement(path: Any, leaf: Any, sharding: Any) -> Placement:
    names = tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
    shape = tuple(leaf.shape)
    item = jnp.dtype(leaf.dtype).itemsize if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else 8
    axes: list[str] = []
    for entry in getattr(sharding, "spec", ()):
        axes += [entry] if isinstance(entry, str) else list(entry or ())
    cut = tuple(axis for axis in axes if sharding.mesh.shape[axis] > 1)
    device = math.prod(sharding.shard_shape(shape)) * item
    return Placement(names, shape, 1, math.prod(shape) * item, device, cut)


def _sum(path: tuple[str, ...], rows: list[Placement]) -> Placement:
    axes = tuple(dict.fromkeys(axis for row in rows for axis in row.axes))
    total = lambda name: sum(getattr(row, name) for row in rows)
    return Placement(path, (), total("arrays"), total("bytes"), total("device_bytes"), axes)


def _part(path: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the part of the model that a parameter is in: the tower of a dual encoder, else its top-level module."""
    return path[:2] if path[0] in ("clip", "blip") and len(path) > 2 else path[:1]


def _part_within(path: tuple[str, ...], parts: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the part whose moments stand at `path` of an optimizer's state; () for its counters."""
    for begin in range(len(path)):
        if _part(path[begin:]) in parts:
            return _part(path[begin:])
    return ()


def _line(name: str, params: Placement, moments: Placement) -> tuple[str, ...]:
    optimizer = (_size(moments.bytes), _size(moments.device_bytes)) if moments.arrays else ("frozen", "")
    cut = ", ".join(params.axes) or "-"
    return (name, str(params.arrays), _size(params.bytes), _size(params.device_bytes), *optimizer, cut)


def _size(count: int) -> str:
    """Returns bytes as text, in the largest unit that is not above them."""
    unit = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**unit:.{1 if unit else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
