"""The only package that says Mesh, PartitionSpec or process: meshes, rules, placement."""

from contextjax.sharding.mapping import map_over_devices
from contextjax.sharding.mesh import BATCH_AXES, batch_parts, check_batch, make_mesh, mesh_of, process_rows
from contextjax.sharding.placement import (
    abstract_state,
    activations,
    init_sharded,
    place,
    place_abstract,
    place_batch,
    place_params,
    state_shardings,
)
from contextjax.sharding.processes import (
    agree,
    end_together,
    first_process_first,
    gather,
    is_first_process,
    rows_of_all,
    share_of_process,
    start_processes,
    stop_after,
    wait_for_all,
)
from contextjax.sharding.table import Placement, grouped, placement_table, placements

__all__ = [
    "BATCH_AXES",
    "Placement",
    "abstract_state",
    "activations",
    "agree",
    "batch_parts",
    "check_batch",
    "end_together",
    "first_process_first",
    "gather",
    "grouped",
    "init_sharded",
    "is_first_process",
    "make_mesh",
    "map_over_devices",
    "mesh_of",
    "place",
    "place_abstract",
    "place_batch",
    "place_params",
    "placement_table",
    "placements",
    "process_rows",
    "rows_of_all",
    "share_of_process",
    "start_processes",
    "state_shardings",
    "stop_after",
    "wait_for_all",
]
