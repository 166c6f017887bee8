"""Gradient caching: the loss and gradients of the large batch, in the memory of a small one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextjax.losses.contrastive import contrastive_loss
from contextjax.objectives.context_blip import CaptionObjective, SelectionObjective
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.sharding import batch_parts, check_batch, make_mesh, map_over_devices, place_abstract, place_batch
from contextjax.training.compiled_step import trace_step
from contextjax.training.micro_batches import in_micro_batches, merge
from contextjax.training.step import train_step, whole_batch
from contextjax.types import TrainState, UserError
from tests.training.step_test import OPTIMIZER, Line

WEIGHTS = (("captions", 0.7), ("consistency", 0.3), ("contrastive", 1.0))
KEY = jax.random.PRNGKey(0)


def grouped(batch, groups):
    """The same batch with its phrases packed in several groups, as several micro-batches and devices need them."""
    phrases, texts = batch.phrases, batch.target_ids.size // groups
    order = np.argsort(np.asarray(phrases.text).ravel() // texts, kind="stable")
    assert (np.bincount(np.asarray(phrases.text).ravel() // texts) == len(order) // groups).all()
    cut = lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:])[order].reshape(groups, -1, *x.shape[2:])
    own = {"tokens": jax.tree.map(cut, phrases.tokens), "span": cut(phrases.span), "valid": cut(phrases.valid)}
    return batch._replace(phrases=phrases._replace(text=cut(phrases.text) % texts, **own))


@pytest.fixture(scope="module")
def setting(tiny):
    """A learned temperature, false negatives, a modification that is missing, phrases of every text."""
    model = tiny.model()
    batch = tiny.batch(16, 2, phrases=32, seed=0)
    text = jnp.arange(32, dtype=jnp.int32).reshape(batch.phrases.text.shape)
    span = jnp.broadcast_to(jnp.asarray([1, 2], jnp.int32), batch.phrases.span.shape)  # the first word of each
    batch = batch._replace(
        target_ids=batch.target_ids.at[3].set(batch.target_ids[5]), phrases=batch.phrases._replace(text=text, span=span)
    )
    return model, tiny.params(model), batch


def close(got, expected):
    """To 1e-5 of the largest value of each array; a key's bias has no gradient but rounding."""
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-6 * largest, rtol=0)


def objective_of(model, weights=WEIGHTS, **options):
    """A threshold keeps phrases that are their whole text, whose maps are equal, off the kink of the distance."""
    return ContextCIRObjective(model, weights, temperature=None, mask_false_negatives=True, epsilon=1e-3, **options)


@pytest.fixture(scope="module")
def whole(setting):
    model, params, batch = setting
    return jax.device_get(jax.jit(functools.partial(whole_batch, objective_of(model), frozen=()))(params, batch, KEY))


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
def test_it_is_the_large_batch(setting, whole, count):
    model, params, batch = setting
    stacked = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), grouped(batch, count))
    run = jax.jit(functools.partial(in_micro_batches, objective_of(model), frozen=()))
    (loss, means), gradients = jax.device_get(run(params, stacked, KEY))
    np.testing.assert_allclose(loss, whole[0][0], rtol=1e-6)
    assert set(means) == set(whole[0][1])
    close(means, whole[0][1])
    assert np.any(gradients["clip"]["logit_scale"])
    close(gradients, whole[1])


@pytest.mark.long
def test_on_a_mesh_with_the_ring_and_something_frozen(setting):
    model, params, batch = setting
    mesh, weights, batch = make_mesh("data:2,fsdp:2,tensor:2"), (("contrastive", 1.0),), batch._replace(phrases=None)
    frozen = ("clip/text",)
    run = jax.jit(functools.partial(whole_batch, objective_of(model, weights), frozen=frozen))
    (expected, expected_means), expected_gradients = jax.device_get(run(params, batch, KEY))
    form = map_over_devices(functools.partial(contrastive_loss, form="ring", chunk=3), mesh)
    objective = objective_of(model, weights, contrastive=form)
    placed = place_batch(jax.device_get(batch), mesh, micro_batches=2)
    run = jax.jit(functools.partial(in_micro_batches, objective, frozen=frozen, parts=batch_parts(mesh)))
    (loss, means), gradients = jax.device_get(run(params, placed, KEY))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert set(expected_means) - set(means) == {"batch_recall"}  # which needs the matrix of logits
    assert not any(np.any(x) for x in jax.tree.leaves(gradients["clip"]["text"]))
    close(gradients, expected_gradients)


def test_the_step_is_the_same_step():
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(2))
    params = {"w": jnp.float32(0.5), "b": jnp.float32(0.25)}
    state = TrainState.fresh(params, OPTIMIZER.init(params), KEY)
    step = functools.partial(train_step, state, objective=Line(), optimizer=OPTIMIZER)
    expected, metrics = step({"x": x, "y": y})
    column = lambda x: x.reshape(4, 2)
    got, cached = step({"x": column(x), "y": column(y)}, differentiate=in_micro_batches)
    close(got.params, expected.params)
    close(cached, metrics)


def test_rows_stay_on_their_device():
    x = np.arange(2 * 8 * 3).reshape(2, 8, 3)
    merged = np.asarray(merge(jnp.asarray(x), 4))
    for device in range(4):
        rows = x[:, 2 * device : 2 * device + 2].reshape(-1, 3)
        np.testing.assert_array_equal(merged[4 * device : 4 * device + 4], rows)
    flat = merge(jnp.asarray(x.reshape(2, 24)), 4)  # rows of rows stay aligned with their rows
    np.testing.assert_array_equal(flat, merged.reshape(-1))


@pytest.mark.long
def test_memory_falls_with_the_number_of_micro_batches(tiny, capsys):
    """Temporary bytes of the compiled step, of one global batch, on one device."""
    model = tiny.model()
    params = tiny.params(model)
    objective = ContextCIRObjective(model, (("contrastive", 1.0),))
    optimizer, mesh = optax.sgd(1e-3), make_mesh("data:1", devices=1)
    state = TrainState.fresh(params, optimizer.init(params), KEY)
    batch = tiny.batch(256, 1)._replace(phrases=None, captions=None)
    found = {}
    for count in (1, 2, 4):
        abstract = place_abstract(batch, mesh, micro_batches=count)
        options = {"shardings": None, "mesh": mesh, "optimizer": optimizer, "micro_batches": count}
        program = trace_step(objective, state, abstract, **options).lower().compile()
        found[count] = program.memory_analysis().temp_size_in_bytes
    with capsys.disabled():
        print(f"\ntemporary bytes of the step by micro-batches: {found}")
    assert found[1] > found[2] > found[4]
    assert found[4] < 0.5 * found[1]


def test_batches_and_losses_that_do_not_go_in_micro_batches_are_told():
    mesh = make_mesh("data:4,fsdp:2")
    check_batch(mesh, 32, micro_batches=4)
    with pytest.raises(UserError, match="multiple of 32"):
        check_batch(mesh, 24, micro_batches=4)
    with pytest.raises(UserError, match="1 or more"):
        check_batch(mesh, 24, micro_batches=0)
    across = CaptionObjective(None, (("matching", 1.0),)), SelectionObjective(None, (("contrastive", 1.0),))
    assert not any(objective.is_rowwise for objective in across)
    by_row = CaptionObjective(None, (("contrastive", 1.0),)), SelectionObjective(None, (("selection", 1.0),))
    assert all(objective.is_rowwise for objective in by_row)
    with pytest.raises(UserError, match="micro_batches is 2"):
        trace_step(across[0], None, None, shardings=None, mesh=mesh, optimizer=OPTIMIZER, micro_batches=2)
