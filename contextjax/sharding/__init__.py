"""The only room that says Mesh, PartitionSpec or process: meshes, rules, placement."""

from contextjax.sharding.mapping import map_over_devices
from contextjax.sharding.mesh import BATCH_AXES, batch_parts, make_mesh, process_slice
from contextjax.sharding.placement import (
    abstract_state,
    activations,
    init_sharded,
    place_abstract,
    place_batch,
    place_like,
    place_params,
    state_shardings,
)
from contextjax.sharding.table import Placement, grouped, placement_table, placements

__all__ = [
    "BATCH_AXES",
    "Placement",
    "abstract_state",
    "activations",
    "batch_parts",
    "grouped",
    "init_sharded",
    "make_mesh",
    "map_over_devices",
    "place_abstract",
    "place_batch",
    "place_like",
    "place_params",
    "placement_table",
    "placements",
    "process_slice",
    "state_shardings",
]
