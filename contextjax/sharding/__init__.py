"""The only room that says Mesh, PartitionSpec or process: meshes, rules, placement."""

from contextjax.sharding.mesh import BATCH_AXES, make_mesh, process_rows
from contextjax.sharding.placement import init_sharded, place, place_batch, place_like, place_params, state_shardings
from contextjax.sharding.processes import agree, first_process_first, gather, is_first_process, start_processes

__all__ = [
    "BATCH_AXES",
    "agree",
    "first_process_first",
    "gather",
    "init_sharded",
    "is_first_process",
    "make_mesh",
    "place",
    "place_batch",
    "place_like",
    "place_params",
    "process_rows",
    "start_processes",
    "state_shardings",
]
