"""Stage 1 of ContextBLIP: PyTorch's form computes what ours does, gradient by gradient."""

import jax
import numpy as np
import pytest

from contextjax.pretrained.names import flatten, write
from experiments.comparisons import stage1
from experiments.comparisons.blip import torch_names

BATCH = 4


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Our step and PyTorch's, of the same weights."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from experiments.comparisons.stage1_torch import TorchStep

    folder = tmp_path_factory.mktemp("weights")
    stage1.write_weights(folder, "tiny")
    return [build(str(folder), "tiny", BATCH, 1) for build in (stage1.Step, TorchStep)]


@pytest.mark.parity
def test_every_gradient_is_pytorchs(steps):
    from contextjax.optim import stop_gradients

    ours, theirs = steps

    def loss(params):
        representations = ours.objective.represent(stop_gradients(params, stage1.FROZEN), ours.batch, None)
        terms = ours.objective.terms(representations, ours.batch)
        return sum(weight * terms[name][0] / terms[name][1] for name, weight in ours.objective.weights)

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours.training.state.params)
    assert not any(np.abs(x).max() for x in jax.tree.leaves(gradients.pop("blip")))
    named = write(torch_names(ours.model.config), flatten(gradients))
    assert float(value) == pytest.approx(theirs.backward()["loss"], rel=1e-5)
    expected = {name: x.grad.numpy() for name, x in theirs.model.named_parameters() if x.grad is not None}
    theirs.model.zero_grad()
    assert set(named) == set(expected)
    largest = max(np.linalg.norm(x) for x in expected.values())
    for name, gradient in expected.items():  # that of a key's bias is noise
        norm = np.linalg.norm(gradient)
        np.testing.assert_allclose(np.linalg.norm(named[name]), norm, rtol=1e-4, atol=1e-9 * largest, err_msg=name)
        atol = 1e-5 * np.abs(gradient).max() + 1e-9 * largest
        np.testing.assert_allclose(named[name], gradient, rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parity
def test_losses_and_gradient_norms_agree_over_steps(steps):
    ours, theirs = steps
    compared = ("loss", "matching", "masking", "similarity", "grad_norm")
    losses = []
    for _ in range(4):
        own, expected = ours.checked_step(), theirs.checked_step()
        assert set(expected) == set(compared)
        assert {name: own[name] for name in compared} == pytest.approx(expected, rel=1e-4)
        losses.append(own["loss"])
    assert losses[-1] < losses[0]
    assert theirs.cost()["flops"] > 0


@pytest.mark.parity
def test_frozen_parameters_cost_no_backward_pass(steps):
    frozen, trained = steps[0].freezing().values()
    assert frozen["flops"] < 0.85 * trained["flops"]
    assert frozen["bytes"] < trained["bytes"] and frozen["state_bytes"] < trained["state_bytes"]


@pytest.mark.parity
def test_the_case_compares_and_times(compare_tiny):
    tables = compare_tiny(stage1, batch=3)
    assert {*tables["programs"]} == {stage1.OURS, stage1.THEIRS}
    assert all(row["difference"] < 1e-4 and len(row) == 6 for row in tables["checked"].values())
    for row in tables["programs"].values():
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0 and row["flops"] > 0 and row["resident"] > 1e6
    (ratio,) = tables["ratios"].values()
    assert ratio["min"] <= ratio["median"] <= ratio["max"] and ratio["target"] == stage1.TARGET
