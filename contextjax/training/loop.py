"""fit: from an initial state and a stream of batches to a trained state."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from contextjax.checkpoints import Checkpoints
from contextjax.sharding import (
    activations,
    agree,
    batch_parts,
    init_sharded,
    is_first_process,
    make_mesh,
    place_batch,
    placement_table,
    wait_for_all,
)
from contextjax.training.hooks import BadStepWatch, CompileCounter, MetricsLog, Progress, StepProfile, Watchdog
from contextjax.training.ledger import DeviceWatch, Ledger, LedgerFile, read_ledger, table
from contextjax.training.micro_batches import in_micro_batches
from contextjax.training.step import Objective, train_step
from contextjax.training.stop import StopRequest
from contextjax.types import Stopped, TrainState, UserError


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
    max_bad_steps: int  # sick steps in a row that end the run
    diagnose_every: int
    best: Mapping[str, float]  # metric -> weight in a checkpoint's score: the best is kept; none: only the newest are
    mesh: str
    frozen: Sequence[str]  # paths of parameters that are not trained
    meta: Mapping[str, Any]  # goes into every checkpoint; its "config_hash" and "data" must agree on resume
    step_timeout: float = 0  # seconds without a step after which the process ends; 0: it waits for ever
    micro_batches: int = 1  # that a batch is represented in, one after the other
    spike_factor: float = 0.0  # a gradient norm above so many times the mean is sick; 0: none is


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
    profile: tuple[int, int] | None = None,
    ledger: Ledger | None = None,
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
      evaluate: params -> metrics, called every `evaluate_every` steps, before the step's checkpoint is written.
      name_records: record rows -> ids, for the message about a bad step.
      profile: the first and the last of the steps that are recorded in the workdir's profile/.
      ledger: whose time began with the command; None: it begins here.

    Returns:
      the state after the last step.

    Raises:
      UserError: `max_bad_steps` sick steps in a row, or a checkpoint of another config or other data.
      Stopped: the process was told to end (SIGTERM); the step that it had made is saved.
    """
    mesh, ledger = make_mesh(config.mesh), ledger or Ledger()
    if config.micro_batches > 1 and diagnose and config.diagnose_every:
        raise UserError(
            "training.diagnose_every needs the whole batch at once, but training.micro_batches is "
            f"{config.micro_batches}; set one of them to its default."
        )
    with contextlib.closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        fresh = functools.partial(init_state, init_params, optimizer, seed)
        state, shardings = _first_state(checkpoints, fresh, mesh, config, start_from)
        start = int(state.step)
        if start >= config.steps:
            return state
        if is_first_process():
            print(placement_table(state), flush=True)
        place = functools.partial(place_batch, mesh=mesh, micro_batches=config.micro_batches)
        stream = ((batch.records, place(batch)) for batch in batches(start))
        first: Any = next(stream)
        with ledger.during("compile"), activations(mesh):
            options = {
                "optimizer": optimizer,
                "frozen": config.frozen,
                "micro_batches": config.micro_batches,
                "spike_factor": config.spike_factor,
            }
            programs = _compile(phases, start, state, first[1], shardings=shardings, mesh=mesh, **options)
            if diagnose and config.diagnose_every:
                diagnose = jax.jit(diagnose).lower(state.params, first[1]).compile()
        hooks = {"schedule": schedule, "diagnose": diagnose, "evaluate": evaluate, "name_records": name_records}
        hooks |= {"profile": StepProfile(workdir / "profile", profile), "ledger": ledger}
        with _Observer(config, checkpoints, workdir, start, phases[-1].start, **hooks) as observer:
            state, is_stopped = _run(state, first, stream, lambda step: programs[_phase_of(phases, step)], observer)
    if is_stopped:
        wait_for_all()  # the first process may still be writing
        raise Stopped(f"Told to end after step {int(state.step)}, which is saved; the same command goes on.")
    if is_first_process():
        print(table(read_ledger(workdir)), flush=True)
    return state


def _run(
    state: TrainState, upcoming: Any, stream: Iterator[Any], program_of: Callable[[int], Any], observer: _Observer
) -> tuple[TrainState, bool]:
    """The steps: (state after the last one, whether there would be more, but the run was told to end)."""
    start, ledger, device = int(state.step), observer.ledger, DeviceWatch()
    ledger.enter("step")
    try:
        for step in range(start + 1, observer.steps + 1):
            records, placed = upcoming
            observer.before(step, state, placed)
            with observer.profile.step(step, state) as done:
                state, metrics = program_of(step - 1)(state, placed)
                done.append(metrics)
            through, began = device.given(metrics), time.monotonic()
            upcoming = next(stream, None)  # read and placed while the device is at the step
            if through:  # and waits now
                ledger.waited(time.monotonic() - max(began, through[0]))
            if observer.after(step, state, metrics, records):
                return state, True
    finally:
        device.close()
    return state, False


class _Observer:
    """What happens beside the steps: diagnoses, log lines, the watch over bad steps, checkpoints and evaluations."""

    def __init__(
        self, config: FitConfig, checkpoints: Checkpoints, workdir: Path, start: int, last_phase: int, *,
        schedule: Callable, diagnose: Callable | None, evaluate: Callable | None, name_records: Callable,
        profile: StepProfile, ledger: Ledger,
    ):  # fmt: skip
        """What `fit` was given; the run goes on after step `start`, and is diagnosed after step `last_phase`."""
        self._config, self._checkpoints, self._last_phase = config, checkpoints, last_phase
        self.steps, self._first = config.steps, start + 1
        self._diagnose, self._evaluate, self.profile, self.ledger = diagnose, evaluate, profile, ledger
        self._rate = jax.jit(schedule)
        self._rate(start)
        self._compiles = CompileCounter()  # from here on only what a save or an evaluation needs may be compiled
        self._log = MetricsLog(workdir, step=start)
        self._ledger_file = LedgerFile(workdir, ledger, step=start) if is_first_process() else None
        self._progress = Progress(start=start, steps=config.steps)
        self._watch = BadStepWatch(
            config.max_bad_steps, name_records, lambda step, known: self._write(step, {}, bad_step=known)
        )
        self._watchdog = Watchdog(config.step_timeout)
        self._stop = StopRequest()

    def __enter__(self) -> _Observer:
        self._stop.__enter__()
        return self

    def __exit__(self, error: type | None, *_: Any) -> None:
        self._progress.close()
        self._watchdog.close()
        self.profile.close()
        self._stop.__exit__()
        try:
            if error is None:
                self._watch.check_previous()
        finally:
            self._log.close()

    def before(self, step: int, state: TrainState, batch: Any) -> None:
        """Diagnoses the step to come, where that is due."""
        every = self._config.diagnose_every
        if self._diagnose and every and step % every == 0 and step > self._last_phase:
            with self.ledger.during("evaluation"), self._watchdog.paused():
                self._write(step, jax.device_get(self._diagnose(state.params, batch)))

    def after(self, step: int, state: TrainState, metrics: Mapping[str, Any], records: np.ndarray) -> bool:
        """Whatever is due after a step; whether to stop before the next one."""
        config, is_last = self._config, step == self._config.steps
        self._watch.check_previous()  # one step behind: the device is never waited for
        self._watch.add(step, metrics, records)
        if step > self._first:  # the one before is done
            self._watchdog.step_done()
        if is_last or step % config.log_every == 0:
            self._log_step(step, metrics)
        score = None
        if self._evaluate and (is_last or step % config.evaluate_every == 0):
            score = self._evaluate_step(step, state)
        is_stopped = not is_last and self._stop.is_due(step)
        is_best = False
        if score is not None and math.isfinite(score):
            best = self._checkpoints.best_score
            is_best = best is None or score >= best
        if is_last or is_stopped or is_best or step % config.checkpoint_every == 0:
            self._save(step, state, score, waits=is_last or is_stopped)
        return is_stopped

    def _save(self, step: int, state: TrainState, score: float | None, *, waits: bool) -> None:
        self._watch.check_previous()
        with self.ledger.during("checkpoint"), self._compiles.expected(), self._watchdog.paused():
            self._log.sync()
            self._checkpoints.save(state, {"step": step, **self._config.meta}, score=score)
            if waits:
                self._checkpoints.wait()
        if self._ledger_file:
            self._ledger_file.write(step)

    def _evaluate_step(self, step: int, state: TrainState) -> float | None:
        """Logs the metrics; returns their weighted sum where the config has a rule of what is best."""
        assert self._evaluate is not None
        self._watch.check_previous()
        with self.ledger.during("evaluation"), self._compiles.expected(), self._watchdog.paused():
            values, rule = agree(self._evaluate(state.params)), self._config.best
            if unknown := [name for name in rule if name not in values]:
                raise UserError(
                    f"training.best names '{unknown[0]}', which is not evaluated; the metrics are {', '.join(values)}."
                )
            score = sum(weight * values[name] for name, weight in rule.items())
            self._write(step, values | ({"score": score} if rule else {}))
        return score if rule else None

    def _log_step(self, step: int, metrics: Mapping[str, Any]) -> None:
        values = jax.device_get(metrics) | {"learning_rate": self._rate(step - 1)}
        values["recompiles"] = self._compiles.unexpected
        self._write(step, values)
        self._progress.show(step, {"loss": float(values["loss"])})
        if self._ledger_file and not self._log.is_remote:
            self._ledger_file.write(step)

    def _write(self, step: int, values: Mapping[str, Any], **more: Any) -> None:
        self._log.write(step, values, seconds=self._log.seconds + self.ledger.trained, **more)


def init_state(init_params: Callable, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """A fresh state, its parameters boxed with logical axes as `init_params` gives them."""
    key = jax.random.PRNGKey(seed)
    params = init_params(key)
    return TrainState.fresh(params, optimizer.init(params), jax.random.fold_in(key, 1))


def _first_state(checkpoints: Checkpoints, init: Callable, mesh: Any, config: FitConfig, start_from: Callable | None):
    """(the state to go on from, its shardings): the newest checkpoint's, or a fresh one."""
    state, shardings = init_sharded(init, mesh)
    if checkpoints.latest is not None:
        state = _restore(checkpoints, state, shardings, config)
    elif start_from is not None:
        state = state._replace(params=start_from(state.params))
    return state, shardings


def _compile(phases, start, state, batch, **options) -> dict[int, Any]:
    """The compiled step of every phase that is still to come, by the phase's start."""
    current = _phase_of(phases, start)
    programs = {}
    for phase in phases:
        if phase.start >= current:
            programs[phase.start] = (
                trace_step(phase.objective, state, batch, first_step=phase.start, **options).lower().compile()
            )
    return programs


def trace_step(
    objective: Objective, state: TrainState, batch: Any, *, shardings: Any, mesh: Any,
    optimizer: optax.GradientTransformation, frozen: Sequence[str] = (), micro_batches: int = 1,
    spike_factor: float = 0.0, first_step: int = 0,
) -> Any:  # fmt: skip
    """The step as `fit` compiles it, of arrays or of shapes with shardings: `.lower().compile()` makes it a program.

    Raises:
      UserError: several micro-batches, of an objective that compares rows while it represents them.
    """
    step = functools.partial(
        train_step, objective=objective, optimizer=optimizer, frozen=frozen, spike_factor=spike_factor,
        first_step=first_step,
    )  # fmt: skip
    if micro_batches > 1:
        if not objective.is_rowwise:
            names = ", ".join(dict(objective.weights))
            raise UserError(
                f"training.micro_batches is {micro_batches}, but one of {names} draws or scores within the whole "
                "batch; set it to 1."
            )
        step = functools.partial(step, differentiate=functools.partial(in_micro_batches, parts=batch_parts(mesh)))
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None)).trace(state, batch)


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
    if meta.get("data") != config.meta.get("data"):
        raise UserError(
            f"The training data are not those that the checkpoint at step {meta['step']} was trained on "
            f"({meta.get('data')} then, {config.meta.get('data')} now); give another --workdir, or those data."
        )
    return state
