"""A run whose memory grows, or that compiles again, is found."""

import functools
import multiprocessing

import numpy as np
import pytest

from experiments.fault_injection import soak
from tests.experiments.fault_injection import scripts


@pytest.fixture
def start(monkeypatch):
    """start(every, compiles): starts a run in a fresh interpreter, whose memory is its own from the start."""
    monkeypatch.setattr(soak, "EVERY", 0.02)

    def begin(workdir, *, every, compiles):
        process = multiprocessing.get_context("spawn").Process(target=scripts.grow, args=(workdir, every, compiles))
        process.start()
        return process

    return lambda every, compiles: functools.partial(begin, every=every, compiles=compiles)


@pytest.mark.parametrize(
    ("every", "compiles", "said"), [(0, 0, ""), (1, 0, "memory grows by"), (0, 2, "2 programs were compiled")]
)
def test_a_run_that_grows_or_compiles_again_is_found(start, tmp_path, every, compiles, said):
    outcome = soak.check_soak("soak", start(every, compiles), tmp_path / "run", steps=40)
    assert (outcome.times, outcome.lost, outcome.corrupt, outcome.passed) == (40, 0, 0, not said), outcome
    assert len(outcome.problems) == bool(said) and all(said in problem for problem in outcome.problems), outcome


def test_a_run_that_ends_early_is_found(start, tmp_path):
    short = soak.check_soak("soak", start(0, 0), tmp_path / "run", steps=400)
    assert any("is not through" in problem for problem in short.problems)


def test_what_a_save_adds_is_bounded(start, tmp_path):
    outcome = soak.check_soak("soak", start(8, 0), tmp_path / "run", steps=40, every=8)
    assert any("MB a save" in problem for problem in outcome.problems) and "over all" in outcome.note, outcome


def test_what_saves_add_is_apart_from_what_steps_add():
    steps = np.arange(500, 2000, 5)
    size = lambda by_step, by_save: 400 + by_step * steps + by_save * (steps // 250)
    for by_step, by_save in ((0.0, 3.0), (0.01, 0.0), (0.01, 2.0)):
        rows = np.stack([0.1 * steps, size(by_step, by_save), steps], axis=1)  # ten steps a second
        slope, saves = soak.growth(rows, 250)
        np.testing.assert_allclose(slope, by_step * 600, atol=1e-6)
        np.testing.assert_allclose(saves, by_save + 250 * by_step, atol=1e-6)
