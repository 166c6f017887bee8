"""Plans of small recipes: their figures against the arrays that training would have, and the advice."""

import dataclasses
import json

import jax
import pytest

from configs.pictograms import get_config as pictograms
from contextjax.analysis.chips import CHIPS, USABLE
from contextjax.types import UserError
from experiments.shared import models, plans

CHIP = dataclasses.replace(CHIPS["H100"], memory=1e9)


def small(mesh="data:2,fsdp:4", **changes):
    """ConText-CIR's recipe, tiny, with one phrase a text."""
    config = pictograms("no_consistency,tiny")
    config.update_from_flattened_dict({"data.modifications": 1, "mesh": mesh} | changes)
    config.optimizer.name = "adamw"
    return config


@pytest.fixture(scope="module")
def plan():
    return plans.make_plan(small())


@pytest.mark.long
def test_a_plan_counts_what_a_run_would_hold(plan):
    from contextjax.optim import make_optimizer
    from contextjax.sharding import init_sharded, make_mesh
    from contextjax.training.first_state import init_state
    from contextjax.variants import make_model, make_spec

    config = small()
    model = make_model(make_spec(config.model, vocabulary=300))
    optimizer = make_optimizer(config.optimizer, steps=6)
    state, _ = init_sharded(lambda: init_state(models.make_init(model), optimizer, 0), make_mesh(config.mesh))
    held = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    assert plan.parameters == sum(x.size for x in jax.tree.leaves(state.params))
    assert (plan.parameter_bytes, plan.optimizer_bytes) == (held(state.params), held(state.opt_state))
    assert plan.state_bytes(8) < plan.parameter_bytes + plan.optimizer_bytes == plan.state_bytes(4)
    pixels = 2 * 8 * 64 * 64 * 3 / 8
    assert pixels < plan.batch_bytes < 1.2 * pixels
    assert plan.cost.devices == 8 and plan.cost.device_flops >= plan.cost.flops / 8
    assert sum(plan.cost.sent.values()) > plan.parameter_bytes


@pytest.mark.long
def test_adapters_are_all_that_the_optimizer_s_state_is_of(plan):
    towers = ("clip/vision", "clip/text")
    paths = tuple(f"{tower}/layers" for tower in towers)
    thin = plans.make_plan(small(**{"model.lora.rank": 2, "model.lora.paths": paths, "optimizer.freeze": towers}))
    rows = {line.split()[0]: line for line in thin.table.splitlines()[1:]}
    assert all("frozen" in rows[tower] for tower in towers) and "frozen" not in rows["lora"]
    assert thin.optimizer_bytes < 0.5 * plan.optimizer_bytes and thin.parameters > plan.parameters
    assert thin.parameter_bytes - plan.parameter_bytes < 0.1 * plan.parameter_bytes
    assert thin.batch_bytes == pytest.approx(plan.batch_bytes, abs=64)
    assert thin.cost.arguments < plan.cost.arguments and thin.cost.peak < plan.cost.peak


@pytest.mark.long
def test_text_and_data_have_all_figures(plan):
    chips = [CHIPS["H100"], CHIPS["v5e"]]
    text = plans.describe(plan, chips, attainable=0.4, hidden=0.5)
    assert f"{plan.parameters:,} parameters; mesh data:2, fsdp:4, tensor:1: 8 devices; batch 8, float32" in text
    assert "step = max(FLOPs / (peak x 0.4), memory bytes / bandwidth) + bytes sent / interconnect x 0.5" in text
    figures = json.loads(json.dumps(plans.as_json(plan, chips, attainable=0.4, hidden=0.5)))
    step = figures["chips"]["v5e"]["seconds"]
    assert step["step"] == max(step["compute"], step["memory"]) + step["collectives"]
    assert figures["chips"]["v5e"]["mfu"] == figures["flops"] / (step["step"] * CHIPS["v5e"].float32 * 8)


@pytest.mark.long
def test_advice_is_for_what_does_not_fit(plan):
    assert plan.fits(CHIP) and not plans.advice(plan, CHIP)
    cost = plan.cost
    crowded = dataclasses.replace(CHIP, memory=(cost.peak - 0.6 * cost.temporaries) / USABLE)
    remat = dataclasses.replace(plan, cost=dataclasses.replace(cost, temporaries=0.1 * cost.temporaries))
    lines = " ".join(plans.advice(plan, crowded, with_remat=remat))
    assert "not even one row a device fits" in lines and "which fits" in lines
    lines = plans.advice(dataclasses.replace(plan, batch=32), crowded)[-1]  # four rows a device, in 2.5 times the room
    assert "a batch of 8 at most instead of 32, or 4 micro-batches" in lines
    tiny_memory = dataclasses.replace(CHIP, memory=1.2 * plan.state_bytes(4))
    lines = plans.advice(plan, tiny_memory)[0]
    assert lines.startswith("mesh data:1,fsdp:8: parameters and optimizer take")
    nothing = dataclasses.replace(CHIP, memory=1.0)
    assert "More devices" in plans.advice(plan, nothing)[-1]


@pytest.mark.long
def test_remat_is_compiled_where_it_is_not_on():
    both = {"model.vision.remat": "full", "model.text.remat": "full"}
    assert plans.make_plan_with_remat(small(**both)) is None
    plan = plans.make_plan_with_remat(small("data:8", **{"model.query": "sum", "loss.weights.captions": 0.0}))
    assert plan is not None and plan.cost.flops > 0


def test_a_batch_that_the_mesh_does_not_divide_is_an_error():
    with pytest.raises(UserError, match="batch_size is 12, but the mesh cuts a batch into 8 parts"):
        plans.make_plan(small(**{"data.batch_size": 12}))
