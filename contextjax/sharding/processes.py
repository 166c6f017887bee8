"""Several processes as one run: how they find each other, which goes first, and what all have to agree on.

One process needs none of it: everything here is then nothing. Each process has a copy of the program and some of the
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
LAST_WORDS = 3600  # seconds that the first process may go on writing when the others are through
LONGEST_WAIT = 7 * 24 * 3600  # seconds that the first process may take to prepare a data set while the others wait

MISTAKE = "mistake: "  # how the first process says that its turn has ended with a UserError

_turns = itertools.count()  # the same in every process, for all take the same turns


def start_processes(*, timeout: int) -> int:
    """Makes the processes of a run know each other; call it before anything else of JAX. Returns how many there are.

    Each finds its number in CONTEXTJAX_COORDINATOR (host:port of process 0), CONTEXTJAX_PROCESSES and
    CONTEXTJAX_PROCESS, or from Slurm, Open MPI or a TPU pod, which JAX reads by itself.

    Args:
      timeout: seconds without a sign of life after which a process counts as dead; JAX then ends the others.

    Raises:
      UserError: some of the three variables are missing, or no numbers; or the others have not come in five minutes.
    """
    # A process that is asked to end shall end: JAX would take SIGTERM for a notice, also where nothing asks for it.
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
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(
            f"The environment has {told}; expected {COORDINATOR}=HOST:PORT of process 0, {PROCESSES}=N and "
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
      UserError: the first process's, in all of them.
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
    """Disconnects from the other processes, if they come here too within so many seconds; else this one is alone.

    A process that just ends takes those down that have heard of it and not ended yet.
    """
    if jax.distributed.is_initialized():
        with contextlib.suppress(Exception):  # they do not come
            _client().wait_at_barrier("contextjax/end", int(1000 * seconds))
            jax.distributed.shutdown()


def stop_after(name: str, step: int, *, is_told: bool) -> int | None:
    """Returns the step after which all processes of a run stop, once one is asked to; None before. Call it after each.

    A process that has started `step` may find others that have started the next one and, not having heard of it, start
    the one after; but none is past that, for a process waits for a step before it starts the next but one. So they stop
    two steps later; a process that is alone at once.

    Args:
      name: of the question, the same in all processes and used once.
      step: that this process has started; the one before is done.
      is_told: whether this process has been asked to stop.
    """
    if jax.process_count() == 1:
        return step if is_told else None
    client, key = _client(), f"contextjax/stop/{name}"
    if is_told:
        with contextlib.suppress(RuntimeError):  # another has been told before
            client.key_value_set(key, str(step + 2))
    try:
        return int(client.key_value_try_get(key))
    except RuntimeError:  # none has
        return None


def wait_for_all() -> None:
    """Returns when every process is here; in hours, where one has so much more to do."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"contextjax/turn/{next(_turns)}", 1000 * LONGEST_WAIT)


def share_of_process(count: int) -> range:
    """Returns which of `count` things in a row this process does, where each is done by one."""
    return range(jax.process_index(), count, jax.process_count())


def _client() -> Any:
    """Returns the coordinator's client; jax's public barrier is a computation, which can't wait for hours."""
    from jax._src.distributed import global_state

    return global_state.client


def agree(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the first process's values in all of them, so that what follows from a number is the same everywhere."""
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
    """Returns the rows of each process, one after the other's; all ask at the same time."""
    if jax.process_count() == 1:
        return rows
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(rows, tiled=True))


def gather(tree: Any) -> Any:
    """Returns a tree of arrays, wherever they are, whole and as numpy in every process; one array after the other."""

    def whole(x: Any) -> np.ndarray:
        if not (x.is_fully_addressable or x.is_fully_replicated):
            x = _replicate(x.sharding.mesh)(x)
        return np.asarray(x)

    return jax.tree.map(whole, tree)
