"""Each job beside the steps: when it is due, and what it writes."""

import contextlib
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from contextjax.training.callbacks import CheckpointSaver, Diagnosis, Evaluation, StepLog
from contextjax.types import UserError
from tests.training.loop_test import CONFIG


class Calls(list):
    """Takes note of every call of any method."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments, **options: self.append((name, *arguments, *options.values()))


class Paused(list):
    """Takes note of the kinds of work that the time of the steps is paused for."""

    @contextlib.contextmanager
    def during(self, kind):
        self.append(kind)
        yield


STATE = SimpleNamespace(params={"w": 2.0})


def test_a_diagnosis_is_due_in_the_last_phase_and_logged():
    log, pause = Calls(), Paused()
    diagnosis = Diagnosis(lambda params, batch: {"sum": params["w"] + batch}, every=4, after=4, log=log, pause=pause)
    assert [step for step in range(1, 13) if diagnosis.is_due(step)] == [8, 12]
    diagnosis.run(8, STATE, 3.0)
    assert log == [("write", 8, {"sum": 5.0})] and pause == ["evaluation"]
    assert not dataclasses.replace(diagnosis, program=None).is_due(8)


def test_the_learning_rate_is_that_of_the_steps_that_counted():
    """A bad step leaves the schedule where it was; the step at hand is not one that was left out before it."""
    log, goodput, progress = Calls(), Calls(), Calls()
    steps = StepLog(lambda step: 10 * step, SimpleNamespace(unexpected=2), log, goodput, progress)
    steps.write(6, {"loss": np.float32(0.5), "skipped": np.int32(2), "bad_steps": np.int32(1)})
    (_, step, values) = log[0]
    assert step == 6 and values["learning_rate"] == 40 and values["recompiles"] == 2
    assert progress == [("show", 6, {"loss": 0.5})] and goodput == [("write_if_due",)]


def test_an_evaluation_is_scored_by_the_rule():
    log, config = Calls(), dataclasses.replace(CONFIG, evaluate_every=5, best={"a": 2.0, "b": -1.0})
    evaluation = Evaluation(lambda params: {"a": params["w"], "b": 1.0}, config, log, Paused())
    assert [step for step in range(1, 13) if evaluation.is_due(step)] == [5, 10, 12]  # and after the last
    assert evaluation.run(5, STATE) == 3.0 and log[-1] == ("write", 5, {"a": 2.0, "b": 1.0, "score": 3.0})
    without = dataclasses.replace(evaluation, config=dataclasses.replace(config, best={}))
    assert without.run(5, STATE) is None and "score" not in log[-1][2]
    with pytest.raises(UserError, match="names 'c', which is not evaluated; the metrics are a, b"):
        dataclasses.replace(evaluation, config=dataclasses.replace(config, best={"c": 1.0})).run(5, STATE)
    never = dataclasses.replace(evaluation, config=dataclasses.replace(config, evaluate_every=0))
    assert not never.is_due(12)


@pytest.mark.parametrize(
    ("score", "best", "is_due"),
    [(None, None, False), (1.0, None, True), (1.0, 1.0, True), (0.5, 1.0, False), (math.nan, None, False)],
)
def test_a_checkpoint_is_saved_in_time_and_where_it_is_the_best(score, best, is_due):
    log, goodput, checkpoints = Calls(), Calls(), Calls()
    checkpoints.best_score = best
    config = dataclasses.replace(CONFIG, workdir=Path(), checkpoint_every=5)
    saver = CheckpointSaver(checkpoints, config, log, goodput, Paused())
    assert saver.is_due(5, score) and saver.is_due(6, score) == is_due
    saver.save(6, STATE, score, waits=True)
    assert log == [("sync",)] and goodput == [("write",)]
    assert checkpoints == [("save", STATE, {"step": 6, "config_hash": "abc"}, score), ("wait",)]
