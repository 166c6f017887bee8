"""The jobs that a run does beside its steps, one class each; loop.py says in which order."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from contextjax.checkpoints.writer import CheckpointWriter
from contextjax.sharding import agree
from contextjax.training.compile_counter import CompileCounter
from contextjax.training.first_state import kept
from contextjax.training.goodput import Goodput, GoodputLog
from contextjax.training.metrics_log import MetricsLog
from contextjax.training.progress import Progress
from contextjax.training.task import FitConfig
from contextjax.training.watchdog import Watchdog
from contextjax.types import TrainState, UserError


@dataclasses.dataclass(frozen=True)
class Pause:
    """Marks work beside the steps: its time is counted as such, the watchdog waits, and compiling is expected."""

    goodput: Goodput
    watchdog: Watchdog
    compiles: CompileCounter

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Counts the time of the block as one of goodput.KINDS."""
        with self.goodput.during(kind), self.compiles.expected(), self.watchdog.paused():
            yield


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Computes and logs metrics that are too expensive for every step, every `diagnose_every` steps."""

    program: Any  # compiled: (parameters, batch) -> metrics; None: nothing is diagnosed
    every: int
    after: int  # the step from which on it fits: the last phase's first
    log: MetricsLog
    pause: Pause

    def is_due(self, step: int) -> bool:
        """Returns whether `step` is diagnosed."""
        return self.program is not None and step % self.every == 0 and step > self.after

    def run(self, step: int, state: TrainState, batch: Any) -> None:
        """Diagnoses the step to come."""
        with self.pause.during("evaluation"):
            self.log.write(step, jax.device_get(self.program(state.params, batch)))


@dataclasses.dataclass(frozen=True)
class StepLog:
    """Logs the metrics of steps, with the learning rate and the number of recompilations, and shows progress."""

    schedule: Callable  # step -> learning rate
    compiles: CompileCounter
    log: MetricsLog
    goodput: GoodputLog
    progress: Progress

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Waits for `step`, and writes its line."""
        values = jax.device_get(metrics)
        left_out = int(values["skipped"]) - int(values["bad_steps"] > 0)  # before this step: the schedule stood still
        values["learning_rate"] = self.schedule(step - 1 - left_out)
        values["recompiles"] = self.compiles.unexpected
        self.log.write(step, values)
        self.progress.show(step, {"loss": float(values["loss"])})
        self.goodput.write_if_due()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluates and logs every `evaluate_every` steps and after the last (0: never); scores by training.best."""

    evaluate: Callable[[Any], Mapping[str, float]] | None
    config: FitConfig
    log: MetricsLog
    pause: Pause

    def is_due(self, step: int) -> bool:
        """Returns whether the state after `step` is evaluated."""
        every = self.config.evaluate_every
        return self.evaluate is not None and every > 0 and (step == self.config.steps or step % every == 0)

    def run(self, step: int, state: TrainState) -> float | None:
        """Logs the metrics of a state; returns its score, None where the config has no rule of what is best.

        Raises:
          UserError: the rule names a metric that is not evaluated.
        """
        assert self.evaluate is not None
        with self.pause.during("evaluation"):
            values, rule = agree(self.evaluate(state.params)), self.config.best
            if unknown := [name for name in rule if name not in values]:
                raise UserError(
                    f"training.best names '{unknown[0]}', which is not evaluated; the metrics are {', '.join(values)}."
                )
            score = sum(weight * values[name] for name, weight in rule.items())
            self.log.write(step, values | ({"score": score} if rule else {}))
        return score if rule else None


@dataclasses.dataclass(frozen=True)
class CheckpointSaver:
    """Saves checkpoints: every `checkpoint_every` steps, and whenever a score is the best so far."""

    checkpoints: CheckpointWriter
    config: FitConfig
    log: MetricsLog
    goodput: GoodputLog
    pause: Pause

    def is_due(self, step: int, score: float | None) -> bool:
        """Returns whether the state after `step`, which has this score, is saved."""
        return self._is_best(score) or step % self.config.checkpoint_every == 0

    def _is_best(self, score: float | None) -> bool:
        if score is None or not math.isfinite(score):
            return False
        with self.pause.during("checkpoint"):  # one may still be written
            best = self.checkpoints.best_score  # in which the first process may be ahead
            return score >= agree({"best": -math.inf if best is None else best})["best"]

    def save(self, step: int, state: TrainState, score: float | None, *, waits: bool) -> None:
        """Saves a state in the background, after its logs are on disk; with `waits`, returns when it is saved."""
        with self.pause.during("checkpoint"):
            self.log.sync()
            self.checkpoints.save(kept(state, self.config), {"step": step, **self.config.meta}, score=score)
            if waits:
                self.checkpoints.wait()
        self.goodput.write()
