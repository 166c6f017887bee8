"""The loop on a toy objective: what is done when, the best checkpoint, and that a resumed run is the same run."""

import contextlib
import dataclasses
import functools
import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextjax.checkpoints.reader import CheckpointReader
from contextjax.training.goodput import read_goodput
from contextjax.training.loop import fit
from contextjax.training.metrics_log import METRICS, read_metrics
from contextjax.training.step_profile import StepProfile
from contextjax.training.task import Callbacks, FitConfig, Phase, Task
from contextjax.types import UserError


class Batch(NamedTuple):
    """A goal, and the records it is of."""

    goal: Any
    records: Any


@dataclasses.dataclass(frozen=True)
class Distance:
    """Squared distance of w to a goal, and noise that only the key knows."""

    weights: tuple = (("distance", 1.0),)

    def represent(self, params, batch, rng):
        return {"w": params["w"] + 0.01 * jax.random.normal(rng)}

    def terms(self, r, batch):
        return {"distance": (((r["w"] - batch.goal) ** 2).sum(), jnp.float32(len(batch.goal)))}


CONFIG = FitConfig(
    workdir=Path(),  # each test has its own
    steps=12, log_every=1, checkpoint_every=5, evaluate_every=2, max_bad_steps=1, diagnose_every=0, best={},
    mesh="data:8", frozen=(), meta={"config_hash": "abc"},
)  # fmt: skip


class Interrupted(Exception):
    """Instead of a signal."""


def batches(start, cut=None):
    for step in range(start, CONFIG.steps):
        if step == cut:
            raise Interrupted
        yield Batch(np.full(8, 1 + 0.1 * step, np.float32), np.arange(8))


def peak(params):
    """Best while w is near a half, which it passes on its way to 1."""
    return {"val/near": -abs(float(params["w"]) - 0.5), "val/far": float(params["w"])}


def zero(key):
    return {"w": jnp.float32(0.0)}


def run(workdir, *, cut=None, init=zero, evaluate=peak, stream=batches, **changes):
    task = Task(
        init_params=init,
        optimizer=optax.adam(0.1),
        schedule=optax.constant_schedule(0.1),
        phases=[Phase(0, Distance())],
        batches=functools.partial(stream, cut=cut),
        seed=0,
    )
    callbacks = Callbacks(diagnose=lambda params, batch: {"goal": batch.goal.mean()}, evaluate=evaluate)
    return fit(dataclasses.replace(CONFIG, workdir=workdir, **changes), task, callbacks)


def kept(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def lines(workdir):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(workdir)]


@pytest.fixture(autouse=True)
def workdir(tmp_path):
    return tmp_path


def test_what_is_due_when(workdir):
    state = run(workdir, diagnose_every=4)
    assert int(state.step) == 12 and kept(workdir) == [10, 12]
    logged = lines(workdir)
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in logged if "val/near" in line] == [2, 4, 6, 8, 10, 12]
    diagnoses = {line["step"]: line["goal"] for line in logged if "goal" in line}
    assert diagnoses == pytest.approx({step: 1 + 0.1 * (step - 1) for step in (4, 8, 12)})
    assert "score" not in logged[-1]
    assert not any(line.get("recompiles") for line in logged)


def test_the_best_by_the_rule_is_kept_even_where_no_checkpoint_is_due(workdir):
    rule = {"val/near": 2.0, "val/far": 0.5}
    run(workdir, best=rule)
    scores = {line["step"]: line["score"] for line in lines(workdir) if "score" in line}
    by_hand = {
        line["step"]: 2 * line["val/near"] + 0.5 * line["val/far"] for line in lines(workdir) if "val/near" in line
    }
    assert scores == pytest.approx(by_hand) and len(scores) == 6
    best = max(scores, key=lambda step: scores[step])
    assert best not in (5, 10, 12)
    checkpoints = CheckpointReader(workdir / "checkpoints")
    assert (checkpoints.best, checkpoints.latest, checkpoints.best_score) == (best, 12, scores[best])
    assert peak(checkpoints.restore_params()[0])["val/near"] == next(
        line["val/near"] for line in lines(workdir) if line["step"] == best and "score" in line
    )
    checkpoints.close()
    assert best in kept(workdir) and 12 in kept(workdir)


LONG = [
    pytest.param(*case, marks=pytest.mark.long) for case in (({"val/near": 1.0}, 3), ({"val/near": 1.0}, 11), ({}, 7))
]


@pytest.mark.parametrize(("best", "cut"), [({"val/near": 1.0}, 7), *LONG])
def test_a_resumed_run_is_the_same_run_and_its_best_the_same(tmp_path, best, cut):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    state = run(whole, best=best)
    with pytest.raises(Interrupted):
        run(resumed, best=best, cut=cut)
    after = run(resumed, best=best)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines(resumed) == lines(whole)
    readers = [CheckpointReader(folder / "checkpoints") for folder in (whole, resumed)]
    assert readers[0].best == readers[1].best and readers[0].best_score == readers[1].best_score
    assert (readers[0].best is not None) == bool(best)
    a, b = (checkpoints.restore_params()[0]["w"] for checkpoints in readers)
    assert a.tobytes() == b.tobytes()
    for checkpoints in readers:
        checkpoints.close()


def test_a_run_that_goes_on_makes_no_fresh_state_beside_the_one_it_restores(tmp_path):
    made = []

    def told(key):
        jax.debug.callback(lambda: made.append(1))
        return zero(key)

    with pytest.raises(Interrupted):
        run(tmp_path, cut=7, init=told)
    assert len(made) >= 1
    made.clear()
    assert int(run(tmp_path, init=told).step) == 12 and not made


def test_what_fails_at_the_end_leaves_neither_handler_nor_log_open(tmp_path, monkeypatch):
    def full(self):
        raise OSError("no space left")

    monkeypatch.setattr(StepProfile, "close", full)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not [path for path in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if path.endswith(METRICS)]
    assert read_goodput(tmp_path)[-1]["steps"] == [0, 12]


def test_a_score_that_is_no_number_is_never_the_best(workdir):
    calls = []

    def evaluate(params):
        calls.append(1)
        return {"m": float("nan") if len(calls) in (1, 4) else float(-len(calls))}

    run(workdir, best={"m": 1.0}, evaluate=evaluate)
    checkpoints = CheckpointReader(workdir / "checkpoints")
    assert (checkpoints.best, checkpoints.best_score) == (4, -2.0)
    checkpoints.close()


def test_a_rule_of_unknown_metrics_is_told(workdir):
    with pytest.raises(
        UserError, match="names 'val/nearer', which is not evaluated; the metrics are val/near, val/far"
    ):
        run(workdir, best={"val/nearer": 1.0})


def test_nothing_is_run_again_after_the_last_step(workdir):
    first = run(workdir)
    before = lines(workdir)
    again = run(workdir)
    assert float(first.params["w"]) == float(again.params["w"]) and lines(workdir) == before


def test_other_data_are_not_gone_on_with(tmp_path):
    meta = {"config_hash": "abc", "data": "first"}
    with pytest.raises(Interrupted):
        run(tmp_path, cut=7, meta=meta)
    with pytest.raises(UserError, match=r"data are not those .* step 5 was trained on \(first then, second now\)"):
        run(tmp_path, meta=meta | {"data": "second"})


def test_the_goodput_log_adds_up_to_the_wall_time_of_all_starts(tmp_path, capsys):
    def slow(start, cut):
        for batch in batches(start):
            time.sleep(0.1)
            yield batch

    wall = 0.0
    for options in ({"cut": 8}, {"stream": slow}):
        begin = time.monotonic()
        with contextlib.suppress(Interrupted):
            run(tmp_path, **options)
        wall += time.monotonic() - begin
    starts = read_goodput(tmp_path)
    assert [line["steps"] for line in starts] == [[0, 7], [5, 12]]
    total = sum(sum(line["seconds"].values()) for line in starts)
    assert wall - 0.5 < total <= wall + 0.01  # the first start was cut after its last account
    assert starts[1]["seconds"]["data"] > 0.5 and starts[0]["seconds"]["compile"] > 0
    assert "Where the time went (2 starts):" in capsys.readouterr().out
