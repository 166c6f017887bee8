"""fit: from an initial state and a stream of batches to a trained state."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.files import locked, remove_partials
from contextjax.sharding import (
    abstract_state,
    activations,
    batch_parts,
    first_process_first,
    init_sharded,
    is_first_process,
    make_mesh,
    place_batch,
    placement_table,
    wait_for_all,
)
from contextjax.training.ledger import DeviceWatch, Ledger, read_ledger, table
from contextjax.training.micro_batches import in_micro_batches
from contextjax.training.observer import FitConfig, Observer
from contextjax.training.step import Objective, train_step
from contextjax.training.step_profile import StepProfile
from contextjax.training.watch import Watchdog
from contextjax.types import Stopped, TrainState, UserError


@dataclasses.dataclass(frozen=True)
class Phase:
    """From step `start` on, this objective is trained."""

    start: int
    objective: Objective


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
    with (
        _alone_in(workdir),
        contextlib.closing(CheckpointWriter(workdir / "checkpoints")) as checkpoints,
        contextlib.closing(Watchdog(config.step_timeout)) as watchdog,
    ):
        fresh = functools.partial(init_state, init_params, optimizer, seed)
        state, shardings = _first_state(checkpoints, fresh, mesh, config, start_from)
        start = int(state.step)
        if start >= config.steps:
            return state
        if is_first_process():
            print(placement_table(state), flush=True)
        place = functools.partial(place_batch, mesh=mesh, micro_batches=config.micro_batches)
        stream = ((batch.records, place(batch)) for batch in batches(start))
        watchdog.step_done()
        first: Any = next(stream)
        with ledger.during("compile"), watchdog.paused(), activations(mesh):
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
        hooks |= {"profile": StepProfile(workdir / "profile", profile), "ledger": ledger, "watchdog": watchdog}
        with Observer(config, checkpoints, workdir, start, phases[-1].start, **hooks) as observer:
            state, is_stopped = _run(state, first, stream, lambda step: programs[_phase_of(phases, step)], observer)
    if is_stopped:
        wait_for_all()  # the first process may still be writing
        raise Stopped(f"Told to end after step {int(state.step)}, which is saved; the same command goes on.")
    if is_first_process():
        print(table(read_ledger(workdir)), flush=True)
    return state


@contextlib.contextmanager
def _alone_in(workdir: Path) -> Iterator[None]:
    """The workdir is this run's; what a killed one has left half written goes. All hear of it where it is another's."""
    with contextlib.ExitStack() as held:
        with first_process_first():
            if is_first_process():
                held.enter_context(locked(workdir, waits=False))
                remove_partials(workdir)
        yield


def _run(
    state: TrainState, upcoming: Any, stream: Iterator[Any], program_of: Callable[[int], Any], observer: Observer
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


def init_state(init_params: Callable, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """A fresh state, its parameters boxed with logical axes as `init_params` gives them."""
    key = jax.random.PRNGKey(seed)
    params = init_params(key)
    return TrainState.fresh(params, optimizer.init(params), jax.random.fold_in(key, 1))


def _first_state(
    checkpoints: CheckpointWriter, init: Callable, mesh: Any, config: FitConfig, start_from: Callable | None
):
    """(the state to go on from, its shardings): the newest checkpoint's, or a fresh one."""
    if checkpoints.latest is not None:
        abstract, shardings = abstract_state(init, mesh)  # a fresh state would be a second one on the devices
        return _restore(checkpoints, abstract, config), shardings
    state, shardings = init_sharded(init, mesh)
    if start_from is not None:
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


def _restore(checkpoints: CheckpointWriter, abstract: TrainState, config: FitConfig) -> TrainState:
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
