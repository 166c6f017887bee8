"""The chunked and the ring form of the contrastive loss: the plain form's value and gradients, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from contextjax.analysis.collectives import bytes_sent, collectives
from contextjax.losses.contrastive import contrastive_loss
from contextjax.sharding import BATCH_AXES, make_mesh, map_over_devices
from tests.losses.contrastive_test import TAU, unit, written_out

ROWS, PURE, WIDTH = 32, 16, 8
TOLERANCE = {np.float64: 1e-6, np.float32: 1e-5}


def example(negatives: str):
    """Random inputs: some rows are not valid, some pictures stand in the batch twice."""
    rng = np.random.default_rng(0)
    options = {
        "valid": rng.random(ROWS) < 0.8,
        "target_ids": rng.integers(0, 24, ROWS),
        "negatives": unit(rng, PURE, WIDTH),
        "negative_ids": rng.integers(0, 24, PURE),
    }
    for name in {"ids": (), "no ids": ("negative_ids",), "none": ("negatives", "negative_ids")}[negatives]:
        del options[name]
    return unit(rng, ROWS, WIDTH), unit(rng, ROWS, WIDTH), options


def forms(chunk):
    """Name -> the form, on one device or on those of a mesh with all three axes."""
    mesh = make_mesh("data:2,fsdp:2,tensor:2")
    chunked, ring = (functools.partial(contrastive_loss, form=form, chunk=chunk) for form in ("chunked", "ring"))
    over = functools.partial(map_over_devices, mesh=mesh)
    return {"chunked": chunked, "chunked, gathered": over(chunked), "ring": over(ring)}


def value_and_gradients(form, query, target, more, *, dtype, mask):
    arrays = {name: jnp.asarray(x, dtype if x.dtype == float else None) for name, x in more.items()}
    differentiable = [jnp.asarray(x, dtype) for x in (query, target, TAU)]
    differentiable += [arrays.pop("negatives")] if "negatives" in arrays else []

    def total(query, target, temperature, *negatives):
        pure = {"negatives": negatives[0]} if negatives else {}
        return form(query, target, temperature=temperature, mask_false_negatives=mask, **pure, **arrays)

    run = jax.value_and_grad(total, argnums=range(len(differentiable)), has_aux=True)
    return jax.device_get(jax.jit(run)(*differentiable))


@pytest.mark.parametrize(
    ("dtype", "negatives", "mask", "chunk"),
    [
        (np.float64, "ids", True, 3),
        pytest.param(np.float64, "none", False, 0, marks=pytest.mark.long),
        pytest.param(np.float32, "ids", True, 0, marks=pytest.mark.long),
        (np.float32, "no ids", True, 5),
    ],
)
def test_value_and_gradients_are_the_plain_forms(dtype, negatives, mask, chunk):
    with jax.enable_x64(dtype == np.float64):
        x = example(negatives)
        run = functools.partial(value_and_gradients, dtype=dtype, mask=mask)
        expected = run(contrastive_loss, *x)
        if "negative_ids" in x[2]:
            np.testing.assert_allclose(expected[0], written_out(*x[:2], mask=mask, **x[2]), rtol=TOLERANCE[dtype])
        for name, form in forms(chunk).items():
            for got, want in zip(jax.tree.leaves(run(form, *x)), jax.tree.leaves(expected), strict=True):
                assert got.dtype == want.dtype, name
                np.testing.assert_allclose(got, want, atol=TOLERANCE[dtype] * np.abs(want).max(), rtol=0, err_msg=name)


@pytest.mark.parametrize("name", ["chunked", "ring"])
def test_no_valid_row_is_zero_and_finite(name):
    query, target, more = example("ids")
    none = more | {"valid": np.zeros(ROWS, bool)}
    value, gradients = value_and_gradients(forms(4)[name], query, target, none, dtype=np.float32, mask=True)
    assert value == (0.0, 0.0)
    assert not any(np.any(gradient) for gradient in gradients)


@functools.cache
def compiled(form: str, devices: int, rows: int, *, width: int = 128, chunk: int = 0, loss=contrastive_loss):
    """Value and gradients of a batch of `rows` a device, with as many negatives, over some of the devices."""
    mesh = jax.make_mesh(
        (devices, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:devices]
    )

    def shape(*sizes, dtype=jnp.float32):
        sharding = NamedSharding(mesh, P(BATCH_AXES) if sizes else P())
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    def total(query, target, negatives, temperature, valid, ids):
        run = map_over_devices(functools.partial(loss, form=form, chunk=chunk), mesh)
        marks = {"valid": valid, "target_ids": ids, "negative_ids": ids, "mask_false_negatives": True}
        return run(query, target, negatives=negatives, temperature=temperature, **marks)[0]

    count = devices * rows
    embeddings = [shape(count, width)] * 3
    inputs = (*embeddings, shape(), shape(count, dtype=bool), shape(count, dtype=jnp.int32))
    outputs = tuple(x.sharding for x in inputs[:4])
    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)), out_shardings=(outputs[-1], outputs))
    return run.lower(*inputs).compile()


def held(devices: int, rows: int, chunk: int) -> int:
    """Temporary bytes of a device, of the ring."""
    return compiled("ring", devices, rows, chunk=chunk).memory_analysis().temp_size_in_bytes


@pytest.mark.long
@pytest.mark.parametrize("chunk", [0, 16])
def test_the_rings_memory_does_not_grow_with_the_devices(chunk):
    sizes = [held(devices, 256, chunk) for devices in (2, 4, 8)]
    assert max(sizes) <= 1.05 * min(sizes), sizes


@pytest.mark.long
def test_the_rings_memory_is_of_embeddings_and_a_block():
    """Twice the rows are twice the bytes, not four times as with whole blocks."""
    for rows, chunk in ((256, 16), (512, 16), (256, 128)):
        assert held(2, rows, chunk) <= 9 * 4 * (2 * rows * 128 + chunk**2), (rows, chunk)
    assert held(2, 512, 16) <= 2.05 * held(2, 256, 16)
    assert held(2, 512, 0) > 3 * held(2, 256, 0)


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_what_is_sent_is_the_formula(devices):
    once = (devices - 1) * 2 * 256 * 128 * 4  # targets and negatives to all other devices
    for form, times in (("ring", 3), ("chunked", 2)):
        operations = collectives(compiled(form, devices, 256, chunk=16).as_text())
        assert all(operation.is_exact for operation in operations)
        assert times * once <= sum(bytes_sent(operations).values()) <= 1.05 * times * once
