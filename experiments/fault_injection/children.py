"""Functions for the processes: the real training command, and trainings with batches cut, spoilt or left out."""

from __future__ import annotations

import contextlib
import itertools
import runpy
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

STALL = 120  # seconds that a stream hangs; then it ends, and so does a run that nothing has ended

Recipe = Sequence[str]  # the --config flags of experiments.train
Through = Callable[[Iterator[Any]], Iterator[Any]]  # what happens to the batches of a training


def run_command(recipe: Recipe, workdir: Path) -> None:
    """Runs experiments.train from its first line to its exit code."""
    from absl import flags

    for flag in [*flags.FLAGS.flags_by_module_dict().get("__mp_main__", ())]:  # of the command that started this one
        delattr(flags.FLAGS, flag.name)
    sys.argv = ["experiments.train", *recipe, f"--workdir={workdir}"]
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)


def train(recipe: Recipe, workdir: Path, through: Through, step_timeout: float = 0) -> list[np.ndarray]:
    """Trains, with batches that went `through` a function, to the end or until it is cut.

    Returns the records of all batches that were read.
    """
    from absl import flags

    from experiments.shared.cli import define_config
    from experiments.shared.training import train

    values, records = flags.FlagValues(), []
    define_config(values)
    sys.argv = ["experiments.train", *recipe]  # where ml_collections looks for the keys that are changed
    values(sys.argv)
    with contextlib.suppress(Cut):
        through_all = lambda batches: recorded(through(batches), records)
        train(values.config, workdir, through=through_all, step_timeout=step_timeout)
    return records


class Cut(Exception):
    """The error that interrupts a run at a chosen batch."""


def recorded(batches: Iterator[Any], records: list[np.ndarray]) -> Iterator[Any]:
    """Passes batches on; `records` gets the records of each."""
    for batch in batches:
        records.append(np.asarray(batch.records))
        yield batch


def cut_after(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """Passes on `count` batches, then raises Cut; 0: never."""
    yield from itertools.islice(batches, count or None)
    if count and next(batches, None) is not None:
        raise Cut


def spoil(batches: Iterator[Any], steps: Collection[int]) -> Iterator[Any]:
    """Gives batches float32 pictures, with NaN in those of some steps, which are numbered from 1."""
    for step, batch in enumerate(batches, 1):
        put = lambda x, is_bad=step in steps: np.full_like(x, np.nan, np.float32) if is_bad else np.float32(x)
        yield jax.tree.map(lambda x, put=put: put(x) if x.dtype in (np.uint8, np.float32) else x, batch)


def hang(batches: Iterator[Any], after: int) -> Iterator[Any]:
    """Passes on so many batches, then hangs."""
    yield from itertools.islice(batches, after)
    time.sleep(STALL)
