"""The Grain loader: order, map, batch. The order is a pure function of (seed, epoch), and the position is the step.

Every process takes its rows of every global batch, and a last, partial batch is filled from the next epoch. So a run
can resume with another number of processes, and every sample is still seen once an epoch (in a mixture, as often as the
weight of its source says).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from contextjax.types import UserError

SHARED_MEMORY = Path("/dev/shm")  # where loader processes leave their batches for the run


class Samples(Protocol):
    """A data set as the loader needs it: a length, samples by number, and a function that makes a batch of samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """Returns a batch of numpy arrays."""
        ...


@runtime_checkable
class DrawnSamples(Samples, Protocol):
    """Samples with a random component, such as augmented pictures."""

    def draw(self, index: int, position: int, /) -> Any:
        """Returns the sample at a position of the endless stream of epochs: a function of the two arguments alone."""
        ...


@dataclasses.dataclass(frozen=True)
class Share:
    """The share of one source in a mixture: `count` samples in a row, each seen `weight` times an epoch.

    Every epoch has count * weight of them (rounded, at least 1). If that is not a whole number of passes over the
    source, the next epoch continues where this one ended, so that at the end of an epoch the counts of a source's
    samples differ by at most one. With weights of 1 a mixture is uniform over its sources' samples.
    """

    count: int
    weight: float = 1.0

    @property
    def per_epoch(self) -> int:
        """The number of the source's samples in an epoch."""
        return max(1, round(self.count * self.weight))


@runtime_checkable
class MixedSamples(Samples, Protocol):
    """Samples of several sources, source by source."""

    @property
    def shares(self) -> Sequence[Share]:
        """The shares of the sources, in their order."""
        ...


SOURCE = 2  # separates a source's draws from those of the order, whose seed has no such number


@functools.lru_cache(maxsize=4)
def epoch_order(shares: tuple[Share, ...], seed: int, epoch: int) -> np.ndarray:
    """Returns the numbers of an epoch's samples in their order, drawn from (seed, epoch)."""
    first = np.cumsum([0, *(share.count for share in shares)])
    rows = [first[i] + _rows_of(share, i, seed, epoch) for i, share in enumerate(shares)]
    return np.random.default_rng([seed, epoch]).permutation(np.concatenate(rows))


def _rows_of(share: Share, index: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the samples of a source in an epoch: a section of its endless sequence of shuffled passes."""
    count, length = share.count, share.per_epoch
    if length % count == 0:
        return np.tile(np.arange(count), length // count)
    begin = epoch * length
    rounds = range(begin // count, (begin + length - 1) // count + 1)
    orders = [np.random.default_rng([seed, number, index, SOURCE]).permutation(count) for number in rounds]
    return np.concatenate(orders)[begin - rounds.start * count :][:length]


def sample_at(position: int, *, shares: tuple[Share, ...], seed: int) -> int:
    """Returns the number of the sample at a position of the endless stream of epochs."""
    epoch, offset = divmod(position, sum(share.per_epoch for share in shares))
    return int(epoch_order(shares, seed, epoch)[offset])


class ProcessStream:
    """The stream of one process, as Grain's random-access source."""

    def __init__(self, samples: Samples, *, batch_size: int, steps: int, seed: int, rows: np.ndarray):
        self.local = len(rows)
        self._samples, self._steps, self._seed = samples, steps, seed
        self._batch_size, self._rows = batch_size, rows
        self._shares = tuple(samples.shares) if isinstance(samples, MixedSamples) else (Share(len(samples)),)

    def __len__(self) -> int:
        return self._steps * self.local

    def __getitem__(self, index: int) -> Any:
        step, offset = divmod(int(index), self.local)
        position = step * self._batch_size + int(self._rows[offset])
        row = sample_at(position, shares=self._shares, seed=self._seed)
        return self._samples.draw(row, position) if isinstance(self._samples, DrawnSamples) else self._samples[row]


def batches(
    samples: Samples,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    start: int = 0,
    rows: np.ndarray | None = None,
    workers: int = 0,
    threads: int = 1,
) -> Iterator[Any]:
    """Returns an iterator over this process's batches of the steps [start, steps).

    Args:
      samples: the data set.
      batch_size: samples in a global batch.
      steps: the last step, exclusive.
      seed: of the order.
      start: first step; resuming at s gives exactly the batches that an uninterrupted run had from s on.
      rows: int, ascending, the rows of the global batch that this process has; None: all.
      workers: loader processes; 0 uses `threads` threads of this process.
      threads: decoding threads where there are no workers.

    Raises:
      UserError: while batches are read, where the system ends a loader process.

    Example:
      for batch in batches(samples, batch_size=128, steps=1000, seed=0):
          ...
    """
    rows = np.arange(batch_size) if rows is None else rows
    stream = ProcessStream(samples, batch_size=batch_size, steps=steps, seed=seed, rows=rows)
    dataset = grain.MapDataset.source(stream)[start * stream.local :]
    dataset = dataset.batch(stream.local, drop_remainder=True, batch_fn=samples.collate)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
    iterable = dataset.to_iter_dataset(read_options=options)
    if workers:
        import absl.flags

        if not absl.flags.FLAGS.is_parsed():
            absl.flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), _work_on)
        return _reported(iter(iterable))
    return iter(iterable)


def _reported(batches: Iterator[Any]) -> Iterator[Any]:
    """Yields the batches. Says in a sentence why a loader process was ended by the system."""
    try:
        yield from batches
    except RuntimeError as error:
        if f"exit code -{signal.SIGBUS.value}" in str(error):
            free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
            raise UserError(
                f"A loader process has found no room for a batch in shared memory ({SHARED_MEMORY}, {free:,} bytes are "
                "free); give it more, as docker run --shm-size=8g does, or set fewer --config.data.workers, or 0."
            ) from error
        if f"exit code -{signal.SIGKILL.value}" in str(error):
            raise UserError(
                "A loader process was killed, as the system does where memory is short; set fewer "
                "--config.data.workers or a smaller --config.data.cache_mb, and run the same command again."
            ) from error
        raise


def _work_on(*_: int) -> None:
    """Prepares a loader process, which ends with its run.

    Signals that reach all processes are for the run, which may have to save first, so the worker ignores them. A killed
    run sends no signal, so the worker watches for the end of its parent.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    run = os.getppid()

    def watch() -> None:
        while os.getppid() == run:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="run watch", daemon=True).start()
