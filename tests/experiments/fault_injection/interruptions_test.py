"""Interrupted runs lose nothing where nothing is wrong, and what is lost is found."""

import functools
import shutil
import time

import numpy as np
import pytest

from experiments.fault_injection.interruptions import interrupt, kill, terminate
from experiments.fault_injection.workdirs import safe_step
from tests.experiments.fault_injection import scripts, toy


def test_kills_and_sigterm_lose_nothing_and_a_loss_is_counted(whole, processes, tmp_path):
    """After the last kill the newest checkpoint is taken away: a run that goes on before it has lost one."""
    safe = []

    def inject(process, workdir, rng):
        problems = (kill, terminate, kill)[len(safe)](process, workdir, rng)
        safe.append(safe_step(workdir))
        if len(safe) == 3:
            shutil.rmtree(workdir / "checkpoints" / str(safe[-1]))
        return problems

    start = lambda workdir: processes.start(toy.run, workdir, log=tmp_path / "log", devices=8)
    outcome = interrupt("all", start, tmp_path / "run", whole[0], times=3, inject=inject, seed=3)
    printed = (tmp_path / "log").read_text()
    assert safe[2] > 0, printed
    assert (outcome.times, outcome.lost, outcome.corrupt, list(outcome.problems)) == (3, 1, 0, []), (outcome, printed)
    assert "Asked to stop" in printed


def test_a_run_that_does_not_save_what_it_has_made_is_found(whole, processes, tmp_path):
    """The run's log is at step 12, its last checkpoint, after SIGTERM, at step 10."""
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    process = processes.start(scripts.stop_without_saving, tmp_path / "ready", log=tmp_path / "log")
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    problems = terminate(process, tmp_path / "run", np.random.default_rng(0))
    assert problems == ["the run was asked to end after step 12, and 10 is saved"]


@pytest.mark.long
def test_a_run_that_does_not_react_to_sigterm_is_found(whole, processes, tmp_path):
    """The run is at its steps, and just ends."""
    start = functools.partial(processes.start, scripts.log_only, log=tmp_path / "log")
    outcome = interrupt("SIGTERM", start, tmp_path / "run", whole[0], times=1, inject=terminate, seed=1)
    assert outcome.times == 1 and not outcome.passed, outcome
    assert any("SIGTERM ended the run after step" in problem for problem in outcome.problems), outcome


def test_a_run_that_can_not_go_on_is_found(whole, processes, tmp_path):
    start = functools.partial(processes.start, scripts.fail, log=tmp_path / "log")
    outcome = interrupt("kill -9", start, tmp_path / "run", whole[0], times=2, inject=kill)
    assert not outcome.passed and outcome.times == 0 and "exit code 3" in outcome.problems[0]
