"""fit: from an initial state and a stream of batches to a trained state."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from contextjax.checkpoints import Checkpoints
from contextjax.sharding import init_sharded, make_mesh, place_batch
from contextjax.training.hooks import CompileCounter, MetricsLog, Progress
from contextjax.training.step import Objective, train_step
from contextjax.types import TrainState, UserError


@dataclasses.dataclass(frozen=True)
class Phase:
    """From step `start` on, this objective is trained."""

    start: int
    objective: Objective


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """The config's `training` section, and what identifies the run."""

    steps: int
    log_every: int
    checkpoint_every: int
    evaluate_every: int
    max_bad_steps: int
    diagnose_every: int
    mesh: str
    frozen: Sequence[str]  # paths of parameters that are not trained
    meta: Mapping[str, Any]  # goes into every checkpoint; its "config_hash" must agree on resume


def fit(
    *,
    config: FitConfig,
    init_params: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Any], Any],
    phases: Sequence[Phase],
    batches: Callable[[int], Iterator[Any]],
    workdir: Path,
    seed: int,
    start_from: Callable[[Any], Any] | None = None,
    diagnose: Callable[[Any, Any], Mapping[str, Any]] | None = None,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    name_records: Callable[[np.ndarray], Sequence[str]] = lambda rows: [str(row) for row in rows.ravel()],
) -> TrainState:
    """Trains, resuming from the workdir's newest checkpoint where there is one.

    Args:
      config: lengths, intervals and the mesh.
      init_params: key -> boxed parameters.
      optimizer: its state is sharded like the parameters.
      schedule: step -> learning rate, for the log.
      phases: objectives by first step; the first starts at 0. All are compiled before the first step.
      batches: first step -> this process's batches from there on.
      workdir: where metrics and checkpoints go.
      seed: of initialisation and of the steps' randomness.
      start_from: fresh params -> those to start from (pretrained ones, say), with the same shardings.
      diagnose: (params, batch) -> what is too dear to compute in every step; a program of its own, called every
        `diagnose_every` steps of the last phase.
      evaluate: params -> metrics, called every `evaluate_every` steps.
      name_records: record rows -> ids, for the message about a bad step.

    Returns:
      the state after the last step.

    Raises:
      UserError: `max_bad_steps` non-finite steps in a row, or a checkpoint of another config.
    """
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(workdir / "checkpoints")

    def init() -> TrainState:
        key = jax.random.PRNGKey(seed)
        params = init_params(key)
        zero = jax.numpy.int32(0)
        return TrainState(zero, params, optimizer.init(params), jax.random.fold_in(key, 1), zero)

    state, shardings = init_sharded(init, mesh)
    if checkpoints.latest is not None:
        state = _restore(checkpoints, state, shardings, config)
    elif start_from is not None:
        state = state._replace(params=start_from(state.params))
    start = int(state.step)
    if start >= config.steps:
        checkpoints.close()
        return state
    stream = ((batch.records, place_batch(batch, mesh)) for batch in batches(start))
    upcoming: Any = next(stream)
    rate = jax.jit(schedule)
    rate(start)
    programs = _compile(phases, start, state, upcoming[1], shardings, optimizer, config.frozen)
    if diagnose and config.diagnose_every:
        diagnose = jax.jit(diagnose).lower(state.params, upcoming[1]).compile()
    compiles = CompileCounter()  # from here on nothing may be compiled but what a save or an evaluation needs
    log = MetricsLog(workdir, step=start)
    progress = Progress(start=start, steps=config.steps)
    watch = _BadStepWatch(config.max_bad_steps, name_records)
    clock = _Clock(log.seconds)
    try:
        for step in range(start + 1, config.steps + 1):
            records, placed = upcoming
            is_last_phase = _phase_of(phases, step - 1) == phases[-1].start
            if diagnose and config.diagnose_every and step % config.diagnose_every == 0 and is_last_phase:
                with clock.paused():
                    log.write(step, jax.device_get(diagnose(state.params, placed)), seconds=clock.before_pause)
            state, metrics = programs[_phase_of(phases, step - 1)](state, placed)
            upcoming = next(stream, None)  # read and placed while the device is at the step
            watch.check_previous()  # one step behind: the device is never waited for
            watch.add(step, metrics, records)
            if step % config.log_every == 0 or step == config.steps:
                values = jax.device_get(metrics) | {"learning_rate": rate(step - 1)}
                values["recompiles"] = compiles.unexpected
                log.write(step, values, seconds=clock.seconds)
                progress.show(step, {"loss": float(values["loss"])})
            if step % config.checkpoint_every == 0 or step == config.steps:
                watch.check_previous()
                with compiles.expected():
                    checkpoints.save(state, {"step": step, **config.meta})
            if evaluate and (step % config.evaluate_every == 0 or step == config.steps):
                with clock.paused(), compiles.expected():
                    log.write(step, evaluate(state.params), seconds=clock.before_pause)
        watch.check_previous()
    finally:
        progress.close()
        log.close()
        checkpoints.close()
    return state


def _compile(phases, start, state, batch, shardings, optimizer, frozen) -> dict[int, Any]:
    """The compiled step of every phase that is still to come, by the phase's start."""
    current = _phase_of(phases, start)
    programs = {}
    for phase in phases:
        if phase.start >= current:
            step = functools.partial(train_step, objective=phase.objective, optimizer=optimizer, frozen=frozen)
            jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
            programs[phase.start] = jitted.lower(state, batch).compile()
    return programs


def _phase_of(phases: Sequence[Phase], step: int) -> int:
    return max(phase.start for phase in phases if phase.start <= step)


def _restore(checkpoints: Checkpoints, state: TrainState, shardings: Any, config: FitConfig) -> TrainState:
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    state, meta = checkpoints.restore(abstract)
    if meta["config_hash"] != config.meta["config_hash"]:
        raise UserError(
            f"The checkpoint at step {meta['step']} is of config {meta['config_hash']}, this run's is "
            f"{config.meta['config_hash']}; give another --workdir or the config it was trained with."
        )
    return state


class _BadStepWatch:
    """Ends the run after `limit` non-finite steps in a row, without ever waiting for the newest step."""

    def __init__(self, limit: int, name_records: Callable[[np.ndarray], Sequence[str]]):
        self._limit, self._name_records = limit, name_records
        self._previous: tuple[int, Any, np.ndarray] | None = None

    def add(self, step: int, metrics: Mapping[str, Any], records: np.ndarray) -> None:
        self._previous = (step, metrics, records)

    def check_previous(self) -> None:
        if self._previous is None:
            return
        step, metrics, records = self._previous
        bad = int(metrics["bad_steps"])
        if bad >= self._limit:
            names = ", ".join(self._name_records(records))
            raise UserError(
                f"Step {step} had a non-finite loss or gradient ({bad} in a row, max_bad_steps is {self._limit}); "
                f"the parameters are those before it. Its records: {names}. Look at them, or lower the learning rate."
            )


class _Clock:
    """Seconds of training: what evaluation takes is left out."""

    def __init__(self, before: float):
        self._begin = time.monotonic() - before
        self.before_pause = before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def paused(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self.before_pause = self.seconds

    def __exit__(self, *_: Any) -> None:
        self._begin = time.monotonic() - self.before_pause
