"""What happens beside the steps of a run, and how its config says when."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.sharding import agree, is_first_process
from contextjax.training.ledger import Ledger, LedgerFile
from contextjax.training.metrics_log import SYNC_SECONDS, MetricsLog, Progress
from contextjax.training.step_profile import StepProfile
from contextjax.training.stop import StopRequest
from contextjax.training.watch import BadStepWatch, CompileCounter, Watchdog
from contextjax.types import TrainState, UserError


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


class Observer:
    """What happens beside the steps: diagnoses, log lines, the watch over bad steps, checkpoints and evaluations."""

    def __init__(
        self, config: FitConfig, checkpoints: CheckpointWriter, workdir: Path, start: int, last_phase: int, *,
        schedule: Callable, diagnose: Callable | None, evaluate: Callable | None, name_records: Callable,
        profile: StepProfile, ledger: Ledger, watchdog: Watchdog,
    ):  # fmt: skip
        """What `fit` was given; the run goes on after step `start`, and is diagnosed after step `last_phase`."""
        self._config, self._checkpoints, self._last_phase = config, checkpoints, last_phase
        self.steps, self._first, self._last = config.steps, start + 1, start
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
        self._watchdog = watchdog
        self._stop = StopRequest()

    def __enter__(self) -> Observer:
        self._stop.__enter__()
        self._watchdog.step_done()  # the clock begins anew
        return self

    def __exit__(self, error: type | None, *_: Any) -> None:
        with contextlib.ExitStack() as last:  # upwards, and all of them whatever one of them raises
            last.callback(self._account, self._last)
            last.callback(self._log.close)
            if error is None:
                last.callback(self._watch.check_previous)
            last.callback(self._stop.__exit__)
            last.callback(self.profile.close)
            last.callback(self._watchdog.close)
            last.callback(self._progress.close)

    def before(self, step: int, state: TrainState, batch: Any) -> None:
        """Diagnoses the step to come, where that is due."""
        every = self._config.diagnose_every
        if self._diagnose and every and step % every == 0 and step > self._last_phase:
            with self.ledger.during("evaluation"), self._watchdog.paused():
                self._write(step, jax.device_get(self._diagnose(state.params, batch)))

    def after(self, step: int, state: TrainState, metrics: Mapping[str, Any], records: np.ndarray) -> bool:
        """Whatever is due after a step; whether to stop before the next one."""
        config, is_last, self._last = self._config, step == self._config.steps, step
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
            # One may still be written.
            with self.ledger.during("checkpoint"), self._compiles.expected(), self._watchdog.paused():
                best = self._checkpoints.best_score  # in which the first process may be ahead
                is_best = score >= agree({"best": -math.inf if best is None else best})["best"]
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
        self._account(step)

    def _account(self, step: int) -> None:
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
        values = jax.device_get(metrics)
        left_out = int(values["skipped"]) - int(values["bad_steps"] > 0)  # before this step: the schedule stood still
        values["learning_rate"] = self._rate(step - 1 - left_out)
        values["recompiles"] = self._compiles.unexpected
        self._write(step, values)
        self._progress.show(step, {"loss": float(values["loss"])})
        if self._ledger_file and (not self._log.is_remote or self._ledger_file.age > SYNC_SECONDS):
            self._account(step)

    def _write(self, step: int, values: Mapping[str, Any], **more: Any) -> None:
        self._log.write(step, values, seconds=self._log.seconds + self.ledger.trained, **more)
