"""The values that `fit` is given: how it trains, what it trains, and what it calls beside the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from contextjax.training.metrics_log import MetricWriter
from contextjax.training.step import Objective


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """The config's `training` section, the workdir, and what identifies the run."""

    workdir: Path  # where metrics and checkpoints go
    steps: int
    log_every: int
    checkpoint_every: int
    evaluate_every: int
    max_bad_steps: int  # bad steps in a row that end the run
    diagnose_every: int
    best: Mapping[str, float]  # metric -> weight in a checkpoint's score: the best is kept; none: only the newest are
    mesh: str
    frozen: Sequence[str]  # paths of parameters that are not trained
    meta: Mapping[str, Any]  # is kept in every checkpoint; its "config_hash" and "data" must agree on resume
    has_base: bool = False  # what is frozen is the base of adapters, see contextjax.lora: checkpoints leave it out
    step_timeout: float = 0  # seconds without a step after which the process ends; 0: it waits for ever
    micro_batches: int = 1  # that a batch is represented in, one after the other
    spike_factor: float = 0.0  # a gradient norm above so many times the mean makes a step bad; 0: none does
    profile: tuple[int, int] | None = None  # the first and the last of the steps recorded in the workdir's profile/
    began: float | None = None  # the moment (time.monotonic) at which the command began; None: when `fit` begins


@dataclasses.dataclass(frozen=True)
class Phase:
    """An objective, and the first step that it is trained from."""

    start: int
    objective: Objective


@dataclasses.dataclass(frozen=True)
class Task:
    """A training task: parameters, optimizer, objectives and data."""

    init_params: Callable[[jax.Array], Any]  # key -> parameters, boxed with logical axes
    optimizer: optax.GradientTransformation  # whose state is sharded like the parameters
    schedule: Callable[[Any], Any]  # step -> learning rate, for the log
    phases: Sequence[Phase]  # by first step, which is 0 for the first; all are compiled before the first step
    batches: Callable[[int], Iterator[Any]]  # first step -> this process's batches from there on
    seed: int  # of initialisation and of the steps' randomness
    start_from: Callable[[Any], Any] | None = None  # fresh parameters -> those to start from, with the same shardings


def row_numbers(rows: np.ndarray) -> list[str]:
    """Names records by their row numbers."""
    return [str(row) for row in rows.ravel()]


@dataclasses.dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls beside its steps; those that are left out are not called."""

    # (parameters, batch) -> metrics that are too expensive for every step: called every `diagnose_every` steps of the
    # last phase, as a program of its own.
    diagnose: Callable[[Any, Any], Mapping[str, Any]] | None = None
    # parameters -> metrics: called every `evaluate_every` steps, before the step's checkpoint is written.
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    # Row numbers of records -> their ids, for the message about a bad step.
    name_records: Callable[[np.ndarray], Sequence[str]] = row_numbers
    # Further places, beside metrics.jsonl and TensorBoard, that every line of metrics is written to.
    writers: Sequence[MetricWriter] = ()
