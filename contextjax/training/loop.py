"""fit: from an initial state and a stream of batches to a trained state."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.files import locked, remove_partials
from contextjax.sharding import (
    activations,
    first_process_first,
    is_first_process,
    make_mesh,
    place_batch,
    placement_table,
    wait_for_all,
)
from contextjax.training.bad_steps import BadStepWatch
from contextjax.training.callbacks import CheckpointSaver, Diagnosis, Evaluation, Pause, StepLog
from contextjax.training.compile_counter import CompileCounter
from contextjax.training.compiled_step import compile_phases, phase_at
from contextjax.training.first_state import first_state, with_base
from contextjax.training.goodput import DeviceWatch, Goodput, GoodputLog, read_goodput, table
from contextjax.training.metrics_log import MetricsLog
from contextjax.training.progress import Progress
from contextjax.training.step_profile import StepProfile
from contextjax.training.stop import StopRequest
from contextjax.training.task import Callbacks, FitConfig, Task
from contextjax.training.watchdog import Watchdog
from contextjax.types import Stopped, TrainState, UserError

NONE = Callbacks()


def fit(config: FitConfig, task: Task, callbacks: Callbacks = NONE) -> TrainState:
    """Trains, resuming from the workdir's newest checkpoint where there is one.

    Args:
      config: lengths, intervals, the mesh and the workdir.
      task: parameters, optimizer, objectives and batches.
      callbacks: what is called beside the steps: evaluation, diagnosis, further places for the metrics.

    Returns:
      the state after the last step.

    Raises:
      UserError: `max_bad_steps` bad steps in a row, or a checkpoint of another config or other data.
      Stopped: the process was asked to end (SIGTERM); the step that it had made is saved.
    """
    _check(config, callbacks)
    mesh, goodput = make_mesh(config.mesh), Goodput(config.began)
    with (
        alone_in(config.workdir),
        contextlib.closing(CheckpointWriter(config.workdir / "checkpoints")) as checkpoints,
        contextlib.closing(Watchdog(config.step_timeout)) as watchdog,
    ):
        state, shardings = first_state(checkpoints, task, config, mesh)
        config = with_base(config, state)
        start = int(state.step)
        if start >= config.steps:
            return state
        if is_first_process():
            print(placement_table(state), flush=True)
        place = functools.partial(place_batch, mesh=mesh, micro_batches=config.micro_batches)
        stream = ((batch.records, place(batch)) for batch in task.batches(start))
        watchdog.step_done()  # a loader may hang on its first batch
        first: Any = next(stream)
        with goodput.during("compile"), watchdog.paused(), activations(mesh):
            programs = compile_phases(config, task, state, first[1], shardings=shardings, mesh=mesh)
            diagnose = None
            if callbacks.diagnose and config.diagnose_every:
                diagnose = jax.jit(callbacks.diagnose).lower(state.params, first[1]).compile()
        with contextlib.ExitStack() as opened:
            jobs = _open_jobs(opened, config, task, callbacks, start, diagnose, checkpoints, watchdog, goodput)
            program_of = lambda step: programs[phase_at(task.phases, step - 1)]
            state, is_stopped = _run_steps(config, state, first, stream, program_of, jobs)
    if is_stopped:
        wait_for_all()  # the first process may still be writing
        raise Stopped(f"Asked to stop after step {int(state.step)}, which is saved; the same command continues.")
    if is_first_process():
        print(table(read_goodput(config.workdir)), flush=True)
    return state


class _Jobs(NamedTuple):
    """The jobs that are done beside the steps."""

    watchdog: Watchdog
    profile: StepProfile
    stop: StopRequest
    bad_steps: BadStepWatch
    goodput: GoodputLog
    device: DeviceWatch
    diagnosis: Diagnosis
    log: StepLog
    evaluation: Evaluation
    saver: CheckpointSaver


def _run_steps(
    config: FitConfig, state: TrainState, batch: Any, stream: Iterator[Any], program_of: Callable[[int], Any],
    jobs: _Jobs,
) -> tuple[TrainState, bool]:  # fmt: skip
    """Runs the steps; returns the state after the last one, and whether the run was asked to stop before its end.

    Do not change the order: what a run leaves behind, and what it may lose, follows from it.
    """
    first = int(state.step) + 1
    for step in range(first, config.steps + 1):
        is_last = step == config.steps
        records, placed = batch
        # 1. Diagnose the step with the parameters that it starts from: it takes their memory.
        if jobs.diagnosis.is_due(step):
            jobs.diagnosis.run(step, state, placed)
        # 2. Start the step.
        with jobs.profile.step(step, state) as results:
            state, metrics = program_of(step)(state, placed)
            results.append(metrics)
        # 3. Read and place the next batch while the device computes.
        with jobs.device.reading(metrics):
            batch = next(stream, None)
        # 4. Check the previous step, which is done: the newest step is never waited for.
        jobs.bad_steps.check_previous()
        jobs.bad_steps.add(step, metrics, records)
        jobs.goodput.step = step
        if step > first:
            jobs.watchdog.step_done()
        # 5. Log.
        if is_last or step % config.log_every == 0:
            jobs.log.write(step, metrics)
        # 6. Evaluate before saving: the checkpoint holds its score. A run that has to end for bad steps ends before.
        score = None
        if jobs.evaluation.is_due(step):
            jobs.bad_steps.check_previous()
            score = jobs.evaluation.run(step, state)
        # 7. Ask whether to stop after evaluating, so that the checkpoint is the last thing that the step writes.
        is_stopped = not is_last and jobs.stop.is_due(step)
        # 8. Save, after the logs: a step that is safe has its lines.
        if jobs.saver.is_due(step, score) or is_last or is_stopped:
            jobs.bad_steps.check_previous()
            jobs.saver.save(step, state, score, waits=is_last or is_stopped)
        if is_stopped:
            return state, True
    return state, False


def _open_jobs(
    opened: contextlib.ExitStack, config: FitConfig, task: Task, callbacks: Callbacks, start: int, diagnose: Any,
    checkpoints: CheckpointWriter, watchdog: Watchdog, goodput: Goodput,
) -> _Jobs:  # fmt: skip
    """Opens what is done beside the steps after `start`; `opened` closes it in reverse order, whatever one raises."""
    schedule = jax.jit(task.schedule)
    schedule(start)
    compiles = CompileCounter()  # from here on only what a save or an evaluation needs may be compiled
    pause = Pause(goodput, watchdog, compiles)
    goodput_log = opened.enter_context(contextlib.closing(GoodputLog(config.workdir, goodput, step=start)))
    log = opened.enter_context(
        contextlib.closing(MetricsLog(config.workdir, goodput, step=start, writers=callbacks.writers))
    )
    bad_steps = opened.enter_context(BadStepWatch(config.max_bad_steps, callbacks.name_records, log))
    stop = opened.enter_context(StopRequest())
    profile = opened.enter_context(contextlib.closing(StepProfile(config.workdir / "profile", config.profile)))
    opened.callback(watchdog.close)
    progress = opened.enter_context(contextlib.closing(Progress(start=start, steps=config.steps)))
    device = opened.enter_context(contextlib.closing(DeviceWatch(goodput)))
    watchdog.step_done()
    goodput.enter("step")
    return _Jobs(
        watchdog=watchdog, profile=profile, stop=stop, bad_steps=bad_steps, goodput=goodput_log, device=device,
        diagnosis=Diagnosis(diagnose, config.diagnose_every, task.phases[-1].start, log, pause),
        log=StepLog(schedule, compiles, log, goodput_log, progress),
        evaluation=Evaluation(callbacks.evaluate, config, log, pause),
        saver=CheckpointSaver(checkpoints, config, log, goodput_log, pause),
    )  # fmt: skip


def _check(config: FitConfig, callbacks: Callbacks) -> None:
    if config.micro_batches > 1 and callbacks.diagnose and config.diagnose_every:
        raise UserError(
            "training.diagnose_every needs the whole batch at once, but training.micro_batches is "
            f"{config.micro_batches}; set one of them to its default."
        )


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Locks the workdir for this run, and removes half-written files that a killed run left behind.

    Raises:
      UserError: another run has locked it; raised in all processes of this one.
    """
    with contextlib.ExitStack() as held:
        with first_process_first():
            if is_first_process():
                held.enter_context(locked(workdir, waits=False))
                remove_partials(workdir)
        yield
