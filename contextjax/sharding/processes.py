"""Runs of several processes: start-up, the first process's turn, and values that all processes agree on.

In a run of one process every function here returns at once. Each process has a copy of the program and some of the
devices; the arrays of a run lie over all of them (https://docs.jax.dev/en/latest/multi_process.html).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contextjax.types import UserError

COORDINATOR, PROCESSES, PROCESS = "CONTEXTJAX_COORDINATOR", "CONTEXTJAX_PROCESSES", "CONTEXTJAX_PROCESS"
LAST_WORDS = 3600  # seconds that the first process may go on writing after the others have finished
LONGEST_WAIT = 7 * 24 * 3600  # seconds that the first process may take to prepare a data set while the others wait

MISTAKE = "mistake: "  # how the first process says that its turn has ended with a UserError

_turns = itertools.count()  # the same in every process, since all take the same turns


def start_processes(*, timeout: int) -> int:
    """Connects the processes of a run and returns their number; call it before anything else of JAX.

    Each finds its number in CONTEXTJAX_COORDINATOR (host:port of process 0), CONTEXTJAX_PROCESSES and
    CONTEXTJAX_PROCESS, or from Slurm, Open MPI or a TPU pod, which JAX reads by itself.

    Args:
      timeout: seconds without a sign of life after which a process counts as dead; JAX then ends the others.

    Raises:
      UserError: some of the three variables are missing, or no numbers; or the others have not come in five minutes.
    """
    # SIGTERM has to end a process: JAX's preemption service would treat it as a notice, even if nothing queries that.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        _initialize(heartbeat_timeout_seconds=timeout, shutdown_timeout_seconds=LAST_WORDS)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The processes of this run have not found each other ({reason}); check that all of them were started, and "
            "that the first one's port can be reached."
        ) from error
    return jax.process_count() if jax.distributed.is_initialized() else 1


def _initialize(**timeouts: int) -> None:
    """Calls jax.distributed.initialize, where there is something to initialize."""
    initialize: Any = functools.partial(jax.distributed.initialize, **timeouts)
    given = {name: os.environ[name] for name in (COORDINATOR, PROCESSES, PROCESS) if os.environ.get(name)}
    if given:
        count, index = _explicit(given)
        if count > 1:
            initialize(given[COORDINATOR], count, index, cluster_detection_method="deactivate")
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # an interactive step of a large job is one process
        initialize(cluster_detection_method="slurm")
    elif int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        initialize(cluster_detection_method="ompi")
    elif importlib.util.find_spec("libtpu"):
        with contextlib.suppress(ValueError):  # a machine without TPUs
            initialize()


def _explicit(given: Mapping[str, str]) -> tuple[int, int]:
    """Returns the number of processes and that of this one, by the environment."""
    count, index = given.get(PROCESSES, ""), given.get(PROCESS, "")
    is_place = re.fullmatch(r".+:[0-9]+", given.get(COORDINATOR, ""))
    if not (is_place and count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(
            f"The environment has {listed}; expected {COORDINATOR}=HOST:PORT of process 0, {PROCESSES}=N and "
            f"{PROCESS}=0 to N-1, or none of them for a single process."
        )
    return int(count), int(index)


def is_first_process() -> bool:
    """Returns whether this is the process that writes files and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """Runs the block in the first process, then in the others, which find what it has made.

    Nothing in the block may need the other processes: no step, no checkpoint.

    Raises:
      UserError: the first process raised it; all of them raise the same.
    """
    if jax.process_count() == 1:
        yield
        return
    turn = f"contextjax/turn/{next(_turns)}"
    if is_first_process():
        try:
            yield
        except UserError as error:
            _client().key_value_set(turn, f"{MISTAKE}{error}")
            raise
        _client().key_value_set(turn, "done")
    else:
        said = _client().blocking_key_value_get(turn, 1000 * LONGEST_WAIT)
        if said.startswith(MISTAKE):
            raise UserError(said.removeprefix(MISTAKE))
        yield


def end_together(seconds: float) -> None:
    """Disconnects from the other processes if they get here too within `seconds`; otherwise does nothing.

    A process that ends without this takes down the others that are still connected to it.
    """
    if jax.distributed.is_initialized():
        with contextlib.suppress(Exception):  # they do not come
            _client().wait_at_barrier("contextjax/end", int(1000 * seconds))
            jax.distributed.shutdown()


def stop_after(name: str, step: int, *, is_asked: bool) -> int | None:
    """Returns the step after which all processes of a run stop, None until one is asked to. Call it after every step.

    When a process that has started `step` is asked to stop, another one may already have started step + 1 and, before
    it hears of the request, start step + 2. None is further ahead, since a process waits for a step before it starts
    the next but one. So all stop after step + 2; a process that is alone stops at once.

    Args:
      name: a key for the request, the same in all processes and used once.
      step: the step that this process has started; the one before is done.
      is_asked: whether this process has been asked to stop.
    """
    if jax.process_count() == 1:
        return step if is_asked else None
    client, key = _client(), f"contextjax/stop/{name}"
    if is_asked:
        with contextlib.suppress(RuntimeError):  # another process was asked before
            client.key_value_set(key, str(step + 2))
    try:
        return int(client.key_value_try_get(key))
    except RuntimeError:  # none has
        return None


def wait_for_all() -> None:
    """Waits until every process gets here, for hours if one of them has that much more to do."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"contextjax/turn/{next(_turns)}", 1000 * LONGEST_WAIT)


def share_of_process(count: int) -> range:
    """Returns the numbers, out of `count` items, of those that this process handles; each item has one process."""
    return range(jax.process_index(), count, jax.process_count())


def _client() -> Any:
    """Returns the coordinator's client; jax's public barrier is a computation, which can't wait for hours."""
    from jax._src.distributed import global_state

    return global_state.client


def agree(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the first process's values in every process, so that decisions that depend on them agree."""
    if jax.process_count() == 1:
        return dict(values)
    from jax.experimental.multihost_utils import broadcast_one_to_all

    # As bits: a float64 would become a float32.
    bits = np.asarray(list(values.values()), np.float64).view(np.uint32)
    agreed = np.asarray(broadcast_one_to_all(bits)).view(np.float64)
    return dict(zip(values, map(float, agreed), strict=True))


@functools.lru_cache
def _replicate(mesh: Mesh) -> Any:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def rows_of_all(rows: np.ndarray) -> np.ndarray:
    """Returns the rows of all processes, concatenated in their order; all processes call it at the same time."""
    if jax.process_count() == 1:
        return rows
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(rows, tiled=True))


def gather(tree: Any) -> Any:
    """Returns a tree of arrays as whole numpy arrays in every process, gathered one after the other."""

    def whole(x: Any) -> np.ndarray:
        if not (x.is_fully_addressable or x.is_fully_replicated):
            x = _replicate(x.sharding.mesh)(x)
        return np.asarray(x)

    return jax.tree.map(whole, tree)
