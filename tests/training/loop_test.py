"""The loop on a toy objective: what is due when, the best checkpoint, and that a resumed run is the same run."""

import dataclasses
import functools
import gzip
import json
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextjax.checkpoints import Checkpoints
from contextjax.training.hooks import parse_steps, read_metrics
from contextjax.training.loop import FitConfig, Phase, fit
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
    steps=12, log_every=1, checkpoint_every=5, evaluate_every=2, max_bad_steps=1, diagnose_every=0, best={},
    mesh="data:8", frozen=(), meta={"config_hash": "abc"},
)  # fmt: skip


class Interrupted(Exception):
    """Instead of a signal."""


def batches(start, *, cut):
    for step in range(start, CONFIG.steps):
        if step == cut:
            raise Interrupted
        yield Batch(np.full(8, 1 + 0.1 * step, np.float32), np.arange(8))


def peak(params):
    """Best while w is near a half, which it passes on its way to 1."""
    return {"val/near": -abs(float(params["w"]) - 0.5), "val/far": float(params["w"])}


def run(workdir, *, cut=None, evaluate=peak, profile=None, **changes):
    return fit(
        config=dataclasses.replace(CONFIG, **changes),
        init_params=lambda key: {"w": jnp.float32(0.0)},
        optimizer=optax.adam(0.1),
        schedule=optax.constant_schedule(0.1),
        phases=[Phase(0, Distance())],
        batches=functools.partial(batches, cut=cut),
        workdir=workdir,
        seed=0,
        diagnose=lambda params, batch: {"goal": batch.goal.mean()},
        evaluate=evaluate,
        profile=profile,
    )


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
    found = lines(workdir)
    assert [line["step"] for line in found if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in found if "val/near" in line] == [2, 4, 6, 8, 10, 12]
    diagnoses = {line["step"]: line["goal"] for line in found if "goal" in line}
    assert diagnoses == pytest.approx({step: 1 + 0.1 * (step - 1) for step in (4, 8, 12)})
    assert "score" not in found[-1]


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
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert (checkpoints.best, checkpoints.latest, checkpoints.best_score) == (best, 12, scores[best])
    assert peak(checkpoints.restore_params()[0])["val/near"] == next(
        line["val/near"] for line in lines(workdir) if line["step"] == best and "score" in line
    )
    checkpoints.close()
    assert best in kept(workdir) and 12 in kept(workdir)


@pytest.mark.parametrize(
    ("best", "cut"), [({"val/near": 1.0}, 3), ({"val/near": 1.0}, 7), ({"val/near": 1.0}, 11), ({}, 7)]
)
def test_a_resumed_run_is_the_same_run_and_its_best_the_same(tmp_path, best, cut):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    state = run(whole, best=best)
    with pytest.raises(Interrupted):
        run(resumed, best=best, cut=cut)
    after = run(resumed, best=best)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines(resumed) == lines(whole)
    found = [Checkpoints(folder / "checkpoints") for folder in (whole, resumed)]
    assert found[0].best == found[1].best and found[0].best_score == found[1].best_score
    assert (found[0].best is not None) == bool(best)
    a, b = (checkpoints.restore_params()[0]["w"] for checkpoints in found)
    assert a.tobytes() == b.tobytes()
    for checkpoints in found:
        checkpoints.close()


def test_a_score_that_is_no_number_is_never_the_best(workdir):
    calls = []

    def evaluate(params):
        calls.append(1)
        return {"m": float("nan") if len(calls) in (1, 4) else float(-len(calls))}

    run(workdir, best={"m": 1.0}, evaluate=evaluate)
    checkpoints = Checkpoints(workdir / "checkpoints")
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


def traced_steps(workdir):
    """The numbers of the steps in each trace of a workdir."""
    found = []
    for path in sorted((workdir / "profile").rglob("*.trace.json.gz")):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found.append({int(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "args" in e})
        assert list(path.parent.glob("*.xplane.pb"))
    return found


def test_exactly_the_chosen_steps_are_recorded_and_training_is_unchanged(tmp_path):
    plain = run(tmp_path / "plain")
    recorded = run(tmp_path / "recorded", profile=(5, 7))
    assert traced_steps(tmp_path / "recorded") == [{5, 6, 7}] and not traced_steps(tmp_path / "plain")
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(recorded), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines(tmp_path / "recorded") == lines(tmp_path / "plain")


def test_a_recording_that_is_interrupted_is_closed_and_what_is_left_is_recorded(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, cut=7, profile=(6, 9))
    time.sleep(1.1)  # the profiler names a recording by its second
    run(tmp_path, profile=(5, 9))
    first, second = traced_steps(tmp_path)
    assert min(first) == 6 and max(first) < 9 and second == {6, 7, 8, 9}


@pytest.mark.parametrize("text", ["5", "5:", "0:3", "7:5", "5:13", "a:b", "-1:2"])
def test_steps_that_there_are_not_are_told(text):
    assert parse_steps("", steps=12) is None and parse_steps("5:5", steps=12) == (5, 5)
    with pytest.raises(
        UserError, match=rf"--profile is '{text}'; expected the first and the last step .* from 1 to 12"
    ):
        parse_steps(text, steps=12)
