"""The placement of parameters and activations by logical axes, and the devices that a program is traced for."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array


def logical(initializer: Callable, *axes: str | None) -> Callable:
    """Adds the logical names of its axes to an initialiser."""
    return nn.with_logical_partitioning(initializer, axes)


def placed(x: Array, *last: str | None, first: str | None = "batch") -> Array:
    """Constrains where an activation is placed: `first` names its first axis, `last` its last ones.

    The rules in force (sharding.activations) say what a name means; an axis that they do not divide evenly is left to
    the compiler. Without rules, nothing happens.
    """
    rules, sizes = dict(nn.get_logical_axis_rules()), jax.sharding.get_abstract_mesh().shape
    if not rules:
        return x
    parts = lambda name: math.prod(sizes[axis] for axis in rules[name] or ()) if name else 1
    names = (first, *(None,) * (x.ndim - 1 - len(last)), *last)
    return with_logical_constraint(
        x, tuple(name if size % parts(name) == 0 else None for name, size in zip(names, x.shape, strict=True))
    )


def batch_parts() -> int:
    """Returns how many parts the devices cut a batch into, by the rules in force."""
    rules, sizes = dict(nn.get_logical_axis_rules()), jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[axis] for axis in rules.get("batch") or ())


def platform() -> str:
    """Returns the platform of the devices that a program is traced for: "cpu", "tpu", "gpu" or "cuda"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()
