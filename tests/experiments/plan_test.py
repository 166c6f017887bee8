"""The planner on small recipes: its figures against the arrays that training would have, the sentences, the command."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs.context_blip import get_config as context_blip
from configs.context_cir import get_config as context_cir
from configs.pictogram_sets import get_config as pictogram_sets
from configs.pictograms import get_config as pictograms
from contextjax.analysis.chips import ATTAINABLE, CHIPS, USABLE
from contextjax.types import CandidateBatch, CaptionBatch, ComposedBatch, FeatureBatch, UserError
from data_pipelines.ops import ComposedSamples
from experiments.shared import assembly, planning, simulation
from tests.commands import environment

ROOT = Path(__file__).parents[2]
CHIP = dataclasses.replace(CHIPS["H100"], memory=1e9)


def small(mesh="data:2,fsdp:4", **changes):
    """ConText-CIR's recipe, tiny, with one phrase a text."""
    config = pictograms("no_consistency,tiny")
    config.update_from_flattened_dict({"data.modifications": 1, "mesh": mesh} | changes)
    config.optimizer.name = "adamw"
    return config


@pytest.fixture(scope="module")
def plan():
    return planning.make_plan(small())


def test_a_plan_counts_what_a_run_would_hold(plan):
    from contextjax.optim import make_optimizer
    from contextjax.sharding import init_sharded, make_mesh
    from contextjax.training.first_state import init_state
    from contextjax.variants import make_model, make_spec

    config = small()
    model = make_model(make_spec(config.model, vocabulary=300))
    optimizer = make_optimizer(config.optimizer, steps=6)
    state, _ = init_sharded(lambda: init_state(assembly.make_init(model), optimizer, 0), make_mesh(config.mesh))
    held = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    assert plan.parameters == sum(x.size for x in jax.tree.leaves(state.params))
    assert (plan.parameter_bytes, plan.optimizer_bytes) == (held(state.params), held(state.opt_state))
    assert plan.state_bytes(8) < plan.parameter_bytes + plan.optimizer_bytes == plan.state_bytes(4)
    pixels = 2 * 8 * 64 * 64 * 3 / 8
    assert pixels < plan.batch_bytes < 1.2 * pixels
    assert plan.cost.devices == 8 and plan.cost.device_flops >= plan.cost.flops / 8
    assert sum(plan.cost.sent.values()) > plan.parameter_bytes


def test_all_that_it_says_is_told(plan):
    chips = [CHIPS["H100"], CHIPS["v5e"]]
    text = planning.describe(plan, chips, attainable=0.4, hidden=0.5)
    assert f"{plan.parameters:,} parameters; mesh data:2, fsdp:4, tensor:1: 8 devices; batch 8, float32" in text
    assert "step = max(FLOPs / (peak x 0.4), memory bytes / bandwidth) + bytes sent / interconnect x 0.5" in text
    found = json.loads(json.dumps(planning.as_json(plan, chips, attainable=0.4, hidden=0.5)))
    step = found["chips"]["v5e"]["seconds"]
    assert step["step"] == max(step["compute"], step["memory"]) + step["collectives"]
    assert found["chips"]["v5e"]["mfu"] == found["flops"] / (step["step"] * CHIPS["v5e"].float32 * 8)


def test_advice_is_for_what_does_not_fit(plan):
    assert plan.fits(CHIP) and not planning.advice(plan, CHIP)
    cost = plan.cost
    crowded = dataclasses.replace(CHIP, memory=(cost.peak - 0.6 * cost.temporaries) / USABLE)
    remat = dataclasses.replace(plan, cost=dataclasses.replace(cost, temporaries=0.1 * cost.temporaries))
    told = " ".join(planning.advice(plan, crowded, with_remat=remat))
    assert "not even one row a device fits" in told and "which fits" in told
    told = planning.advice(dataclasses.replace(plan, batch=32), crowded)[
        -1
    ]  # four rows a device, in 2.5 times the room
    assert "a batch of 8 at most instead of 32, or 4 micro-batches" in told
    tiny_memory = dataclasses.replace(CHIP, memory=1.2 * plan.state_bytes(4))
    told = planning.advice(plan, tiny_memory)[0]
    assert told.startswith("mesh data:1,fsdp:8: parameters and optimizer take")
    nothing = dataclasses.replace(CHIP, memory=1.0)
    assert "More devices" in planning.advice(plan, nothing)[-1]


def test_remat_is_compiled_to_be_told():
    both = {"model.vision.remat": "full", "model.text.remat": "full"}
    assert planning.make_plan_with_remat(small(**both)) is None
    plan = planning.make_plan_with_remat(small("data:8", **{"model.query": "sum", "loss.weights.captions": 0.0}))
    assert plan is not None and plan.cost.flops > 0


@pytest.mark.parametrize(
    ("config", "kind", "pictures"),
    [
        (context_cir("B32"), ComposedBatch, 2),
        (context_cir("L14,modern"), ComposedBatch, 2),
        (pictograms(), ComposedBatch, 5),
        (context_blip("1"), CaptionBatch, 1),
        (context_blip("2a,card"), CandidateBatch, 10),
        (context_blip("2b"), FeatureBatch, 0),
        (pictogram_sets("pairs"), CandidateBatch, 10),
    ],
)
def test_every_recipe_has_a_batch_and_sizes_without_data_or_hub(config, kind, pictures):
    config = planning.with_sizes(config)
    batch = assembly.parts(config).abstract_batch(config)
    size = config.model.vision.image_size
    pixels = sum(math.prod(x.shape) for x in jax.tree.leaves(batch) if x.dtype == jnp.uint8)
    assert isinstance(batch, kind) and pixels == config.data.batch_size * pictures * size * size * 3


def test_the_command(tmp_path):
    """Of what it prints, too: the chips and the share of the peak that the library assumes."""
    output = tmp_path / "plan.json"
    line = [sys.executable, "-m", "experiments.plan", "--config=configs/pictograms.py:towers,tiny"]
    run = lambda *flags: subprocess.run([*line, *flags], cwd=ROOT, env=environment(), capture_output=True, text=True)
    done = run("--mesh=data:2,fsdp:2", "--batch=4", f"--output={output}")
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert (found["mesh"], found["batch"]) == ({"data": 2, "fsdp": 2, "tensor": 1}, 4)
    assert list(found["chips"]) == list(CHIPS) and all(chip["fits"] for chip in found["chips"].values())
    assert f"(peak x {ATTAINABLE:g})" in done.stdout and f"{found['parameters']:,} parameters" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-len(CHIPS) :]] == list(CHIPS)
    refused = run("--mesh=data:-1")
    assert refused.returncode == 2 and refused.stderr.startswith("error: mesh is 'data:-1'")
    assert len(refused.stderr.splitlines()) == 1


def test_what_there_is_no_number_for_is_told():
    config = context_cir("B16")
    config.model.variant = ""
    with pytest.raises(UserError, match=r"base-patch16', no folder on this machine, and model\.variant is empty"):
        planning.sizes_of(config)
    with pytest.raises(UserError, match="a plan needs numbers, as --mesh=data:8,fsdp:4"):
        simulation.count_devices("data:-1")
    assert simulation.count_devices("data:8,fsdp:4") == 32
    with pytest.raises(UserError, match="has 4096 devices, and 2048 can be simulated"):
        simulation.count_devices("data:512,fsdp:8")
    with pytest.raises(UserError, match="batch_size is 12, but the mesh cuts a batch into 8 parts"):
        planning.make_plan(small(**{"data.batch_size": 12}))


def test_an_abstract_batch_is_what_the_loader_makes(pictograms_folder, tmp_path):
    """Shape by shape, of a recipe with phrases and captions."""
    from data_pipelines.loader import batches
    from experiments.shared.data import load_data

    config = recipe_on(pictograms_folder)
    data = load_data(config, "train")
    tokenizer = assembly.make_tokenizer(config, tmp_path, data)
    samples = assembly.make_samples(config, data, tokenizer, tmp_path)
    assert isinstance(samples, ComposedSamples)
    batch = next(iter(batches(samples, batch_size=4, steps=1, seed=0)))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(batch) == shapes(assembly.parts(config).abstract_batch(config))


@pytest.fixture
def pictograms_folder(request):
    return request.getfixturevalue("pictograms")  # whose name is the recipe's here


def recipe_on(folder):
    config = pictograms()
    config.data.folder, config.data.batch_size, config.data.vocabulary = str(folder), 4, 300
    with config.unlocked():
        config.model = assembly.resolve_model(config)
    return config
