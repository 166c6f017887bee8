"""A training step on any mesh is the step on one device: losses, gradients, what is random in them included."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextjax.models.context_blip import ContextBLIP
from contextjax.objectives.context_blip import CaptionObjective, Draws, SelectionObjective
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import abstract_params
from contextjax.sharding import activations, make_mesh, place_batch, state_shardings
from contextjax.training.step import train_step
from contextjax.types import TrainState
from tests.models.context_blip_test import candidate_batch, caption_batch, random_params, small_model

EVERY = "data:2,fsdp:2,tensor:2"
MORE = ("data:8", "fsdp:8", "tensor:8", "data:4,fsdp:2", "data:4,tensor:2", "fsdp:4,tensor:2")
KEY = 0
MESHES = [EVERY, *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in MORE)]


def composed(tiny, dtype):
    """All terms of ConText-CIR; a modification that is missing."""
    model = tiny.model(dtype=dtype)
    weights = (("captions", 0.5), ("consistency", 0.1), ("contrastive", 1.0))
    batch = tiny.batch(8, 2, phrases=2, groups=8)
    return ContextCIRObjective(model, weights, mask_false_negatives=True), tiny.params(model), batch


def captions(tiny, dtype):
    """ContextBLIP's stage 1: two captions of one picture; hard negatives and masks are the step's key's."""
    model = shallow(dtype, selection="none", context_layers=0)
    batch = caption_batch(tiny, 8)
    objective = CaptionObjective(model, (("contrastive", 0.5), ("masking", 1.0), ("matching", 1.0)))
    return objective, random_params(model), batch._replace(image_ids=batch.image_ids.at[5].set(2))


@dataclasses.dataclass(frozen=True)
class Chosen(CaptionObjective):
    """With negatives and patches that are given: rounding may flip a choice by scores, and no norm bounds what then is.

    What is added to the scores by which patches are chosen is far larger than they are.
    """

    def represent(self, params, batch, rng, draws=None):
        rows = jnp.arange(8)
        noise = 1e4 * jax.random.permutation(rng, jnp.tile(jnp.arange(16.0), (8, 1)), axis=1, independent=True)
        draws = Draws((rows + 1) % 8, (rows + 2) % 8, jnp.ones(8, jnp.int32), noise)
        return super().represent(params, batch, rng, draws)


def without_choices(case):
    """The case with nothing in it that is chosen by numbers which rounding changes."""
    objective, *inputs = case
    fields = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    return (Chosen(**fields) if isinstance(objective, CaptionObjective) else objective), *inputs


def candidates(tiny, dtype):
    """All that stages 2a and 2b train, dropout included: two texts a set, one set filled up."""
    model = shallow(dtype, masking="none", selection="both")
    batch, rows = candidate_batch(tiny, 8, 3), jnp.repeat(jnp.arange(8), 2)
    batch = batch._replace(
        texts=tiny.texts(16), target=batch.target[rows].at[8:10].set(1), records=jnp.arange(16),
        valid=batch.valid[rows].at[8:10, 2].set(False), ordered=batch.ordered[rows],
    )  # fmt: skip
    return SelectionObjective(model, (("contrastive", 0.5), ("selection", 36.0))), random_params(model), batch


def shallow(dtype, **options) -> ContextBLIP:
    """One block a tower: what is cut is the same in every block."""
    config = small_model(**options).config
    vision = dataclasses.replace(config.blip.vision, layers=1, taps=(1,))
    return ContextBLIP(dataclasses.replace(config, blip=dataclasses.replace(config.blip, vision=vision)), dtype)


def one_step(case, *, mesh: str = ""):
    """(loss, gradients) of a training step; the optimizer's state holds the gradients."""
    objective, params, batch = case
    optimizer = optax.trace(decay=0.5)
    step = functools.partial(train_step, objective=objective, optimizer=optimizer)
    state = TrainState.fresh(params, optimizer.init(params), jax.random.key(KEY))
    if not mesh:
        state, metrics = jax.jit(step)(state, batch)
        return jax.device_get((metrics["loss"], state.opt_state.trace))
    placed = make_mesh(mesh)
    shardings = state_shardings(abstract_params(objective.model), placed)
    put = functools.partial(jax.device_put, device=shardings)
    state = state._replace(params=put(params), opt_state=optax.TraceState(put(state.opt_state.trace)))
    cut = [not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params)]
    assert any(cut) == (placed.shape["data"] != 8)
    with activations(placed):
        state, metrics = jax.jit(step)(state, place_batch(jax.tree.map(np.asarray, batch), placed))
    return jax.device_get((metrics["loss"], state.opt_state.trace))


@pytest.fixture(scope="module", params=[composed, captions, candidates])
def on_one_device(request, tiny):
    return request.param, one_step(request.param(tiny, None))


@pytest.mark.long
@pytest.mark.parametrize("mesh", MESHES)
def test_a_step_on_a_mesh_is_that_of_one_device(on_one_device, tiny, mesh):
    case, (loss, gradients) = on_one_device
    found, found_gradients = one_step(case(tiny, None), mesh=mesh)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradients))
    check = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * largest)
    jax.tree.map(check, found_gradients, gradients)


@pytest.fixture(scope="module")
def rounded(on_one_device, tiny):
    """The step of one device in float32, and the distance of that in bfloat16 from it."""
    case, expected = on_one_device
    if case is captions:
        expected = one_step(without_choices(case(tiny, None)))
    return expected, distance(one_step(without_choices(case(tiny, jnp.bfloat16))), expected)


@pytest.mark.long
@pytest.mark.parametrize("mesh", [EVERY, *(pytest.param(m, marks=pytest.mark.slow) for m in ("data:8", "fsdp:8"))])
def test_bfloat16_is_no_farther_from_float32_than_on_one_device(on_one_device, rounded, tiny, mesh):
    case, (expected, on_one) = on_one_device[0], rounded
    found = one_step(without_choices(case(tiny, jnp.bfloat16)), mesh=mesh)
    assert 0 < on_one < 0.2
    assert distance(found, expected) <= 1.5 * on_one


def distance(found, expected) -> float:
    """Norm of the difference of loss and all gradients together, over that of the expected ones."""
    norm = lambda tree: float(np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(tree))))
    return norm(jax.tree.map(np.subtract, found, expected)) / norm(expected)
