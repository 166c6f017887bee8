"""Trains as one of several processes, and does what the environment says: python -m tests.sharding.trains FLAGS.

RECORDS=FOLDER   each process writes the numbers of each batch's records to a file of its own there
ENDS=PROCESS     that process is asked to end (SIGTERM) before its third step
HANGS=PROCESS    the loader of that process gives nothing more after six batches
The flags are those of experiments.train, which runs after these changes.
"""

import json
import os
import runpy
import signal
import time
from pathlib import Path

from contextjax.training import loop
from data_pipelines.loader import ProcessStream

PROCESS = os.environ.get("CONTEXTJAX_PROCESS", "0")


def before_each_step(act) -> None:
    """Calls `act` with each batch that is about to be placed on the devices."""
    place = loop.place_batch

    def acts(batch, **options):
        act(batch)
        return place(batch, **options)

    loop.place_batch = acts


def record(batch) -> None:
    with Path(os.environ["RECORDS"], PROCESS).open("a") as file:
        print(json.dumps(batch.records[batch.valid].tolist()), file=file)


def end_before_the_third(_, calls=[]) -> None:  # noqa: B006 (counts its calls)
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGTERM)


def hang_after_six() -> None:
    get = ProcessStream.__getitem__

    def late(self, index):
        time.sleep(600 if index >= 6 * self.local else 0)
        return get(self, index)

    ProcessStream.__getitem__ = late


if __name__ == "__main__":
    if "RECORDS" in os.environ:
        before_each_step(record)
    if os.environ.get("ENDS") == PROCESS:
        before_each_step(end_before_the_third)
    if os.environ.get("HANGS") == PROCESS:
        hang_after_six()
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
