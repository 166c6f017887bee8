"""ContextBLIP sharded equals ContextBLIP on one device, hard negatives and dropout included."""

import dataclasses

import jax
import numpy as np
import pytest

from contextjax.models.context_blip import ContextBLIP
from contextjax.objectives.context_blip import CaptionObjective, SelectionObjective
from contextjax.pretrained import abstract_params
from contextjax.sharding import make_mesh, place_batch, state_shardings
from tests.models.context_blip_test import candidate_batch, caption_batch, jit, random_params, small_model

MESHES = ("data:8", "data:4,tensor:2", "fsdp:4,data:2", "fsdp:8")
KEY = jax.random.key(3)


def stage_1(tiny):
    """Captions of which two are of one picture; draws are the key's."""
    model = shallow(selection="none", context_layers=0)
    batch = caption_batch(tiny, 8)
    objective = CaptionObjective(model, (("contrastive", 0.5), ("masking", 1.0), ("matching", 1.0)))
    return objective, batch._replace(image_ids=batch.image_ids.at[5].set(2))


def stage_2(tiny):
    """All that stages 2a and 2b train, at once; one set is filled up."""
    model = shallow(masking="none", selection="both")
    batch = candidate_batch(tiny, 8, 3)
    objective = SelectionObjective(model, (("contrastive", 0.5), ("selection", 36.0)))
    return objective, batch._replace(valid=batch.valid.at[4, 2].set(False), target=batch.target.at[4].set(1))


def shallow(**options) -> ContextBLIP:
    """One block a tower: what is cut is the same in every block."""
    config = small_model(**options).config
    vision = dataclasses.replace(config.blip.vision, layers=1, taps=(1,))
    return ContextBLIP(dataclasses.replace(config, blip=dataclasses.replace(config.blip, vision=vision)))


@pytest.fixture(scope="module", params=[stage_1, stage_2])
def on_one_device(request, tiny):
    objective, batch = request.param(tiny)
    params = random_params(objective.model)

    def loss(params, batch):
        terms = objective.terms(objective.represent(params, batch, KEY), batch)
        return sum(weight * terms[name][0] / terms[name][1] for name, weight in objective.weights)

    step = jit(jax.value_and_grad(loss))
    params, batch = jax.tree.map(np.asarray, (params, batch))  # from the host to a mesh nothing is compiled
    return objective.model, params, batch, step, jax.device_get(step(params, batch))


@pytest.mark.parametrize("mesh", MESHES)
def test_sharded_equals_unsharded(on_one_device, mesh):
    model, params, batch, step, (value, gradients) = on_one_device
    mesh = make_mesh(mesh)
    shardings = state_shardings(abstract_params(model), mesh)
    sharded = jax.device_put(params, shardings)
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(sharded)) == (dict(mesh.shape)["data"] != 8)
    placed = place_batch(batch, mesh)
    assert len(placed.images.addressable_shards[0].data) == 8 // (mesh.shape["data"] * mesh.shape["fsdp"])
    got, got_gradients = step(sharded, placed)
    np.testing.assert_allclose(got, value, rtol=1e-5)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * largest), got_gradients, gradients)


def test_negatives_are_drawn_from_the_global_batch(tiny):
    """The same ones on any mesh, and pictures of other devices among them."""
    objective, batch = stage_1(tiny)
    rng = np.random.default_rng(0)
    text, image = (rng.normal(size=(8, 4)).astype(np.float32) for _ in range(2))

    def draw(text, image, batch, key):
        return objective._draw(key, text @ image.T, batch)

    keys = [jax.random.fold_in(KEY, i) for i in range(3)]
    expected = [jit(draw)(text, image, batch, key) for key in keys]
    for name in MESHES:
        mesh = make_mesh(name)
        inputs = place_batch((text, image, jax.tree.map(np.asarray, batch)), mesh)
        run = jit(draw)
        for key, drawn in zip(keys, expected, strict=True):
            jax.tree.map(np.testing.assert_array_equal, run(*inputs, key), drawn)
    far = [np.abs(np.asarray(drawn.negative_image) - np.arange(8)) > 1 for drawn in expected]
    assert np.mean(far) > 0.5
    assert len({tuple(np.asarray(drawn.negative_image).tolist()) for drawn in expected}) == 3
