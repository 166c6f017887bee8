"""One of two processes that save, and can't for a while: python -m tests.sharding.saves FOLDER."""

import contextlib
import resource
import sys
from pathlib import Path

import jax
import numpy as np

from contextjax.checkpoints import writer
from contextjax.sharding import end_together, make_mesh, place_batch, start_processes
from contextjax.types import Health, TrainState, UserError


def state_of(step):
    """Each process has some of the rows."""
    mesh = make_mesh("data:-1")
    rows = np.random.default_rng(step).normal(size=(jax.local_device_count(), 50_000)).astype(np.float32)
    whole = lambda x: place_batch(np.repeat(np.asarray(x)[None], jax.local_device_count(), 0), mesh)
    health = Health(*(whole(x) for x in (np.int32(0), np.int32(0), np.zeros(2, np.float32))))
    return TrainState(whole(np.int32(step)), place_batch({"w": rows}, mesh), {}, whole(np.zeros(2, np.uint32)), health)


@contextlib.contextmanager
def no_room_for_one():
    """Limits the size of the files that the second process may write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if jax.process_index() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def main(folder):
    """Saves 1, 2 and 3; for the second there is no room. Says what became of each."""
    start_processes(timeout=60)
    writer.BARRIER_SECONDS = 8
    with contextlib.closing(writer.CheckpointWriter(folder)) as saved:
        for step, fault in enumerate([contextlib.nullcontext, no_room_for_one, contextlib.nullcontext], 1):
            with fault():
                saved.save(state_of(step), {"step": step})
                try:
                    saved.wait()
                    print(step, "is saved", flush=True)
                except UserError as error:
                    print(error, flush=True)
    end_together(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
