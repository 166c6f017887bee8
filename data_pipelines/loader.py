"""Grain: order, map, batch. The order is a pure function of (seed, epoch); the position is the step.

Every process takes its slice of every global batch, and a last, partial batch is filled from the next
epoch: so a run can go on with another number of processes and every sample is still seen once an epoch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np


class Samples(Protocol):
    """A data set as the loader needs it: a length, samples by row, and how they become a batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """A batch of numpy arrays."""
        ...


@runtime_checkable
class DrawnSamples(Samples, Protocol):
    """Samples with something random in them, such as augmented pictures."""

    def draw(self, index: int, position: int, /) -> Any:
        """The sample as it is at a position of the endless stream of epochs: a function of the two alone."""
        ...


@functools.lru_cache(maxsize=4)
def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `length` samples in an epoch: a permutation drawn from (seed, epoch)."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def sample_at(position: int, *, length: int, seed: int) -> int:
    """The sample at a position of the endless stream of epochs."""
    epoch, offset = divmod(position, length)
    return int(epoch_order(length, seed, epoch)[offset])


class ProcessStream:
    """One process's part of the stream, as Grain's random-access source."""

    def __init__(self, samples: Samples, *, batch_size: int, steps: int, seed: int, process: int, processes: int):
        if batch_size % processes:
            raise ValueError(f"batch size {batch_size} does not divide among {processes} processes.")
        self.local = batch_size // processes
        self._samples, self._steps, self._seed = samples, steps, seed
        self._batch_size, self._process = batch_size, process

    def __len__(self) -> int:
        return self._steps * self.local

    def __getitem__(self, index: int) -> Any:
        step, offset = divmod(int(index), self.local)
        position = step * self._batch_size + self._process * self.local + offset
        row = sample_at(position, length=len(self._samples), seed=self._seed)
        return self._samples.draw(row, position) if isinstance(self._samples, DrawnSamples) else self._samples[row]


def batches(
    samples: Samples,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
    threads: int = 1,
) -> Iterator[Any]:
    """This process's batches of the steps [start, steps).

    Args:
      samples: the data set.
      batch_size: samples in a global batch.
      steps: the last step, exclusive.
      seed: of the order.
      start: first step; resuming at s gives exactly what an uninterrupted run had from s on.
      process: index of this process.
      processes: number of processes.
      workers: loader processes; 0 uses `threads` threads of this one.
      threads: decoding threads where there are no workers.
    """
    stream = ProcessStream(samples, batch_size=batch_size, steps=steps, seed=seed, process=process, processes=processes)
    dataset = grain.MapDataset.source(stream)[start * stream.local :]
    dataset = dataset.batch(stream.local, drop_remainder=True, batch_fn=samples.collate)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
    iterable = dataset.to_iter_dataset(read_options=options)
    if workers:
        import absl.flags

        if not absl.flags.FLAGS.is_parsed():
            absl.flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(iterable)
