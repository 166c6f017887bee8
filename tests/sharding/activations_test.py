"""The bytes that devices send each other for a tower and for an objective, read in the compiled programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextjax.analysis.collectives import collectives
from contextjax.models.layers import placed
from contextjax.models.text import TextConfig, TextTransformer
from contextjax.models.vision import VisionConfig, VisionTransformer
from contextjax.objectives.context_blip import SelectionObjective
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import abstract_params
from contextjax.sharding import activations, make_mesh, place_batch, placements, state_shardings
from tests.sharding.equality_test import candidates, captions

BATCH, WIDTH, LAYERS = 16, 32, 2
VISION = VisionConfig(16, 8, width=WIDTH, layers=LAYERS, heads=4, mlp=64)
TEXT = TextConfig(64, 8, width=WIDTH, layers=LAYERS, heads=4, mlp=64)


def sent(function, boxed, batch, name):
    """The collectives of function(params, batch) on a mesh, and where the parameters are."""
    mesh = make_mesh(name)
    shardings = state_shardings(boxed, mesh)
    params = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)
    with activations(mesh):
        program = jax.jit(function).lower(params, place_batch(jax.tree.map(np.asarray, batch), mesh)).compile()
    return collectives(program.as_text()), placements(params)


def towers(tiny):
    """(module, inputs, collectives of its token table)."""
    return {
        "vision": (VisionTransformer(VISION), (tiny.pictures(BATCH),), 0),
        "text": (TextTransformer(TEXT), tuple(tiny.texts(BATCH, length=8)), 1),
    }


def of_tower(tiny, name, mesh):
    module, inputs, lookups = towers(tiny)[name]
    boxed = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    found, where = sent(lambda params, inputs: module.apply({"params": params}, *inputs).pooled, boxed, inputs, mesh)
    return found, where, inputs[0], lookups


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_with_tensor_a_block_adds_up_twice_and_nothing_is_gathered(tiny, tower):
    """The two all-reduces of a block's forward pass (Shoeybi et al. 2019), of activations; with a text its lookup."""
    found, _, inputs, lookups = of_tower(tiny, tower, "data:4,tensor:2")
    tokens = 1 + (16 // 8) ** 2 if tower == "vision" else inputs.shape[1]
    assert {operation.kind for operation in found} == {"all-reduce"}
    assert len(found) == 2 * LAYERS + lookups
    assert {operation.total for operation in found} == {BATCH // 4 * tokens * WIDTH * 4}  # 2 R (n - 1) / n, n = 2


def test_with_fsdp_parameters_are_gathered_and_nothing_else_is_sent(tiny):
    """Each once, where it is used; no activation."""
    found, where, *_ = of_tower(tiny, "vision", "fsdp:8")
    assert {operation.kind for operation in found} == {"all-gather"}
    whole = sum(row.bytes for row in where if row.axes)
    assert sum(operation.total for operation in found) == whole * 7 / 8
    per_block = [operation for operation in found if "layer_1" in operation.source]
    assert sum(operation.total for operation in per_block) == 7 / 8 * sum(
        row.bytes for row in where if row.path[0] == "layer_1" and row.axes
    )


def test_what_is_composed_stays_on_its_device(tiny):
    """Pictures, texts, phrases and captions: representing them sends nothing."""
    model = tiny.model()
    objective = ContextCIRObjective(model, (("captions", 0.5), ("consistency", 0.1), ("contrastive", 1.0)))
    batch = tiny.batch(8, 2, phrases=2, groups=8)
    found, _ = sent(objective.represent, abstract_params(model), batch, "data:8")
    assert found == ()


@pytest.mark.long
def test_candidates_stay_with_their_texts(tiny):
    both, _, batch = candidates(tiny, None)
    objective = SelectionObjective(both.model, (("selection", 1.0),))
    represent = lambda params, batch: objective.represent(params, batch, jax.random.key(0))
    found, _ = sent(represent, abstract_params(both.model), batch, "data:8")
    assert found == ()


@pytest.mark.long
def test_negatives_cost_one_gather_of_their_tokens(tiny):
    objective, _, batch = captions(tiny, None)
    represent = lambda params, batch: objective.represent(params, batch, jax.random.key(0))
    found, _ = sent(represent, abstract_params(objective.model), batch, "data:8")
    vision = objective.model.config.blip.vision
    tokens = len(batch.images) * (1 + (vision.image_size // vision.patch_size) ** 2) * vision.width * 4
    totals = sorted((operation.total for operation in found), reverse=True)
    assert totals[0] == tokens * 7 / 8
    assert sum(totals[1:]) < tokens / 2  # embeddings, ids and the draws: their widths are not small here


def test_without_rules_nothing_happens():
    x = jnp.ones((3, 5))
    assert placed(x, "mlp") is x
    with activations(make_mesh("data:8")):
        assert str(jax.make_jaxpr(placed)(x)).count("sharding_constraint") == 1
        found = jax.jit(placed)(x)  # three rows do not divide: they are everywhere
    assert found.sharding.is_fully_replicated
