"""SigLIP's loss against its definition in float64; its chunked and ring form against the plain one, on a mesh too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from contextjax.analysis.collectives import bytes_sent, collectives
from contextjax.losses.sigmoid import sigmoid_loss
from contextjax.sharding import BATCH_AXES, make_mesh, map_over_devices
from tests.losses.contrastive_test import TAU
from tests.losses.logsumexp_test import TOLERANCE, compiled, example

BIAS = -1.5


def written_out(query, target, valid, target_ids, negatives=None, negative_ids=None, mask=False):
    """Pair by pair: only real rows ask and only real rows are candidates."""
    softplus, total, rows = lambda x: np.logaddexp(0, x), 0.0, np.flatnonzero(valid)
    for i in rows:
        total += softplus(-(query[i] @ target[i] / TAU + BIAS))
        others = [target[j] for j in rows if j != i and not (mask and target_ids[j] == target_ids[i])]
        for k in range(0 if negatives is None else len(negatives)):
            if not (mask and negative_ids is not None and negative_ids[k] == target_ids[i]):
                others.append(negatives[k])
        total += sum(softplus(query[i] @ other / TAU + BIAS) for other in others)
    return total, len(rows)


def value_and_gradients(form, query, target, more, *, dtype, mask):
    """The loss, and its gradients of queries, targets, temperature, bias and negatives."""
    arrays = {name: jnp.asarray(x, dtype if x.dtype == float else None) for name, x in more.items()}
    differentiable = [jnp.asarray(x, dtype) for x in (query, target, TAU, BIAS)]
    differentiable += [arrays.pop("negatives")] if "negatives" in arrays else []

    def total(query, target, temperature, bias, *negatives):
        pure = {"negatives": negatives[0]} if negatives else {}
        return form(query, target, temperature=temperature, bias=bias, mask_false_negatives=mask, **pure, **arrays)

    run = jax.value_and_grad(total, argnums=range(len(differentiable)), has_aux=True)
    return jax.device_get(jax.jit(run)(*differentiable))


def forms(chunk):
    """Name -> the form, on one device or on those of a mesh with all three axes."""
    mesh = make_mesh("data:2,fsdp:2,tensor:2")
    chunked, ring = (functools.partial(sigmoid_loss, form=form, chunk=chunk) for form in ("chunked", "ring"))
    over = functools.partial(map_over_devices, mesh=mesh)
    return {"chunked": chunked, "chunked, gathered": over(chunked), "ring, one device": ring, "ring": over(ring)}


@pytest.mark.parametrize(
    ("dtype", "negatives", "mask", "chunk"),
    [
        (np.float64, "ids", True, 3),
        pytest.param(np.float64, "none", False, 0, marks=pytest.mark.long),
        pytest.param(np.float32, "ids", True, 0, marks=pytest.mark.long),
        (np.float32, "no ids", True, 5),
    ],
)
def test_all_forms_have_the_value_and_the_gradients_of_the_plain_one(dtype, negatives, mask, chunk):
    with jax.enable_x64(dtype == np.float64):
        x = example(negatives)
        run = functools.partial(value_and_gradients, dtype=dtype, mask=mask)
        expected = run(sigmoid_loss, *x)
        np.testing.assert_allclose(expected[0], written_out(*x[:2], mask=mask, **x[2]), rtol=TOLERANCE[dtype])
        for name, form in forms(chunk).items():
            for got, want in zip(jax.tree.leaves(run(form, *x)), jax.tree.leaves(expected), strict=True):
                assert got.dtype == want.dtype, name
                np.testing.assert_allclose(got, want, atol=TOLERANCE[dtype] * np.abs(want).max(), rtol=0, err_msg=name)


def test_gradients_are_those_of_the_definition():
    query, target, more = example("ids")
    with jax.enable_x64():
        _, gradients = value_and_gradients(sigmoid_loss, query, target, more, dtype=np.float64, mask=True)
    rng = np.random.default_rng(1)
    for name, gradient in zip(("query", "target"), gradients, strict=False):
        inputs, step = {"query": query, "target": target}, rng.normal(size=query.shape)
        moved = [inputs | {name: inputs[name] + sign * 1e-6 * step} for sign in (1, -1)]
        plus, minus = (written_out(**each, **more, mask=True)[0] for each in moved)
        np.testing.assert_allclose((gradient * step).sum(), (plus - minus) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("form", ["gathered", "chunked", "ring"])
def test_no_valid_row_is_zero_and_finite(form):
    query, target, more = example("ids")
    more["valid"][:] = False
    run = functools.partial(sigmoid_loss, form=form)
    (total, count), gradients = value_and_gradients(run, query, target, more, dtype=np.float32, mask=True)
    assert total == count == 0 and not any(np.asarray(x).any() for x in gradients)


def test_the_loss_sharded_by_the_compiler_is_that_of_one_device():
    query, target, more = example("ids")
    mesh = make_mesh("data:4,fsdp:2")
    rows = lambda x: jax.device_put(x, NamedSharding(mesh, P(BATCH_AXES))) if np.ndim(x) else x
    run = functools.partial(value_and_gradients, dtype=np.float32, mask=True)
    expected, got = run(sigmoid_loss, query, target, more), run(
        lambda q, t, **options: sigmoid_loss(rows(q), rows(t), **{k: rows(x) if k != "mask_false_negatives" else x
                                                                  for k, x in options.items()}),
        query, target, more)  # fmt: skip
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


FORM = functools.partial(sigmoid_loss, bias=BIAS)


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 8])
def test_what_is_sent_is_the_softmax_losses_formula(devices):
    once = (devices - 1) * 2 * 256 * 128 * 4  # targets and negatives to all other devices
    for form, times in (("ring", 3), ("chunked", 2)):
        operations = collectives(compiled(form, devices, 256, chunk=16, loss=FORM).as_text())
        assert all(operation.is_exact for operation in operations)
        assert times * once <= sum(bytes_sent(operations).values()) <= 1.05 * times * once


def test_the_rings_memory_grows_neither_with_the_devices_nor_with_the_square_of_the_rows():
    held = lambda devices, rows: (
        compiled("ring", devices, rows, chunk=16, loss=FORM).memory_analysis().temp_size_in_bytes
    )
    assert held(8, 256) <= 1.05 * held(2, 256)
    assert held(2, 512) <= 2.05 * held(2, 256) <= 2.05 * 12 * 4 * (2 * 256 * 128 + 16**2)
