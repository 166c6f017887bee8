"""Functions that every device runs on its own rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from contextjax.sharding.mesh import BATCH_AXES


def map_over_devices(body: Callable[..., Any], mesh: Mesh, *, whole: Collection[str] = ()) -> Callable[..., Any]:
    """Returns a function of whole arrays in which each device runs `body` on its own rows.

    Args:
      body: takes `axis_name` (the mesh's batch axes) beside its arguments, and returns what is the same on all
        devices. Arrays come cut along their first axis, numbers and arrays without axes as they are.
      mesh: the rows are cut over its batch axes; the compiler decides about the other axes.
      whole: names of keyword arguments that every device gets whole.

    Returns:
      the function, with the signature of `body` less `axis_name`. The rows must divide among the devices.
    """

    def mapped(*args: Any, **options: Any) -> Any:
        flags = {name: value for name, value in options.items() if isinstance(value, bool)}
        arrays = (args, {name: value for name, value in options.items() if name not in flags})
        specs = jax.tree.map(lambda x: PartitionSpec(BATCH_AXES) if np.ndim(x) else PartitionSpec(), arrays)
        for name in whole:
            specs[1][name] = jax.tree.map(lambda _: PartitionSpec(), options[name])
        run = lambda args, options: body(*args, **options, **flags, axis_name=BATCH_AXES)
        return jax.shard_map(
            run, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), axis_names=set(BATCH_AXES), check_vma=False
        )(*arrays)

    return mapped
