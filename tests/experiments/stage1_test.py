"""Comparisons of ContextBLIP's stages: PyTorch's stage 1 computes what ours does; stage 2b is timed both ways."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.pretrained.names import flatten, write
from contextjax.types import UserError
from experiments.comparisons import cached_compare, stage1_case, stage1_compare, stage1_process

ROOT = Path(__file__).parent.parent.parent
BATCH = 4


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Ours and PyTorch's, of the same weights."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from experiments.comparisons import stage1_jax, stage1_torch

    folder = tmp_path_factory.mktemp("weights")
    stage1_case.write_weights(folder, "tiny")
    return [module.Program(str(folder), "tiny", BATCH, 1) for module in (stage1_jax, stage1_torch)]


@pytest.mark.parity
def test_every_gradient_is_pytorchs(programs):
    from contextjax.optim import stop_gradients
    from experiments.comparisons import stage1_jax

    ours, theirs = programs
    objective, batch = ours._objective, ours._batch

    def loss(params):
        found = objective.represent(stop_gradients(params, stage1_jax.FROZEN), batch, None)
        terms = objective.terms(found, batch)
        return sum(weight * terms[name][0] / terms[name][1] for name, weight in objective.weights)

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours._state.params)
    assert not any(np.abs(x).max() for x in jax.tree.leaves(gradients.pop("blip")))
    found = write(stage1_case.table(ours._model.config), flatten(gradients))
    assert float(value) == pytest.approx(theirs.backward()["loss"], rel=1e-5)
    expected = {name: x.grad.numpy() for name, x in theirs.model.named_parameters() if x.grad is not None}
    theirs.model.zero_grad()
    assert set(found) == set(expected)
    largest = max(np.linalg.norm(x) for x in expected.values())
    for name, gradient in expected.items():  # a key's bias has none but noise
        norm = np.linalg.norm(gradient)
        np.testing.assert_allclose(np.linalg.norm(found[name]), norm, rtol=1e-4, atol=1e-9 * largest, err_msg=name)
        atol = 1e-5 * np.abs(gradient).max() + 1e-9 * largest
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parity
def test_losses_and_gradient_norms_agree_over_steps(programs):
    ours, theirs = programs
    steps = [stage1_compare.check(ours.checked_step(), theirs.checked_step()) for _ in range(4)]
    assert steps[-1]["loss"][0] < steps[0]["loss"][0]
    assert theirs.cost()["flops"] > 0


@pytest.mark.parity
def test_what_is_frozen_costs_no_backward_pass(programs):
    frozen, trained = programs[0].freezing().values()
    assert frozen["flops"] < 0.85 * trained["flops"]
    assert frozen["bytes"] < trained["bytes"] and frozen["state_bytes"] < trained["state_bytes"]


@pytest.mark.parity
def test_the_command_compares_and_times(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    found = run("stage1_speed", tmp_path, "--batch=3", "--pairs=2")
    assert {*found["steps"]} == {stage1_compare.OURS, stage1_compare.THEIRS}
    for step in found["steps"].values():
        assert len(step["seconds"]) == 2 and min(step["seconds"]) > 0 and step["flops"] > 0 and step["resident"] > 1e6
    assert found["ratio"]["min"] <= found["ratio"]["median"] <= found["ratio"]["max"]


def test_what_differs_is_not_timed():
    same = dict.fromkeys(stage1_compare.COMPARED, 1.0)
    assert stage1_compare.check(same, same)["loss"] == (1.0, 1.0)
    for wrong in (1.001, float("nan")):
        with pytest.raises(UserError, match="masking is 1 in PyTorch, and here"):
            stage1_compare.check({**same, "masking": wrong}, same)


def test_draws_are_negatives_at_real_tokens():
    batch, draws = stage1_case.make_batch("tiny", BATCH)
    own = np.arange(BATCH)
    assert (draws.negative_image != own).all() and (draws.negative_text != own).all()
    assert batch.texts.mask[own, draws.position].all() and not batch.texts.mask.all()
    assert draws.noise.shape == (BATCH, 16)


def test_a_process_that_fails_is_told():
    with (
        stage1_process.Process("nothing", dict) as process,
        pytest.raises(UserError, match="process of nothing ended at 'missing'"),
    ):
        process.ask("missing")
    with stage1_process.Process("a dictionary", dict) as process:
        assert process.ask("copy") == {}


def test_stage_2b_from_features_and_from_pictures():
    sizes = {"size": "tiny", "batch": 4, "sets": 2, "steps": 2}
    found = cached_compare.compare(**sizes, pairs=2, descriptions=100)
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
    cached, again = (found["epochs"][name] for name in (cached_compare.CACHED, cached_compare.AGAIN))
    assert cached["flops"] / sizes["batch"] < again["flops"] / sizes["sets"]
    assert cached["timed_descriptions"] == 8 and found["ratio"]["median"] > 0
    assert "scaled" in cached_compare.table(found)
    with pytest.raises(UserError, match="30 steps of 4 are more than the 100 descriptions"):
        cached_compare.compare(**{**sizes, "steps": 30}, pairs=1, descriptions=100)


def test_only_the_context_encoder_changes():
    from experiments.comparisons.cached_jax import Stage2b

    stage = Stage2b("tiny")
    before = jax.tree.map(jnp.array, stage._state.params)
    samples = stage.features(8)
    stage.steps("cached", samples.collate(range(4)), lambda: [samples.collate(range(4))])()
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, stage._state.params)
    assert {name for name, tree in changed.items() if any(jax.tree.leaves(tree))} == {"context"}


def run(name: str, folder: Path, *flags: str) -> dict:
    """What a command at tiny size writes."""
    path = folder / "found.json"
    command = [
        sys.executable,
        "-m",
        f"experiments.comparisons.{name}",
        "--size=tiny",
        "--threads=1",
        f"--output={path}",
    ]
    plain = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run([*command, *flags], cwd=ROOT, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "target" in done.stdout
    return json.loads(path.read_text(encoding="utf-8"))
