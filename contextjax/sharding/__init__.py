"""The only room that says Mesh, PartitionSpec or process: meshes, rules, placement."""

from contextjax.sharding.mapping import map_over_devices
from contextjax.sharding.mesh import BATCH_AXES, make_mesh, process_slice
from contextjax.sharding.placement import init_sharded, place_batch, place_like, place_params, state_shardings

__all__ = [
    "BATCH_AXES",
    "init_sharded",
    "make_mesh",
    "map_over_devices",
    "place_batch",
    "place_like",
    "place_params",
    "process_slice",
    "state_shardings",
]
