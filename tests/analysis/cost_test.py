"""FLOPs of traced programs by hand formulas and by XLA; memory and bytes of compiled ones."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from contextjax.analysis.cost import cost_of, traced_flops
from contextjax.models.vision import VisionConfig, VisionTransformer
from tests.analysis.by_hand import image_flops

VISION = VisionConfig(32, 8, width=64, layers=3, heads=4, mlp=256)


def vit(**changes):
    """(pictures and parameters -> pooled states, their shapes)."""
    model = VisionTransformer(dataclasses.replace(VISION, **changes))
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8)
    params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), images))
    return lambda params, images: model.apply(params, images).pooled, (params, images)


def test_a_vit_by_hand_and_by_xla():
    program, shapes = vit()
    by_hand = 4 * image_flops(VISION, 0)
    assert traced_flops(program, *shapes) == by_hand
    by_xla = jax.jit(program).lower(*shapes).cost_analysis()["flops"]
    assert by_hand < by_xla < 1.15 * by_hand  # elementwise work comes on top


def test_stacked_layers_count_as_often_as_they_run():
    (stacked, stacked_shapes), (unrolled, shapes) = vit(scan=True), vit()
    assert traced_flops(stacked, *stacked_shapes) == traced_flops(unrolled, *shapes)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_gradient_costs_twice_the_pass_before_it_and_remat_one_more(remat):
    program, (params, images) = vit(remat=remat)
    loss = lambda params, images: program(params, images).sum()
    forward, step = traced_flops(loss, params, images), traced_flops(jax.grad(loss), params, images)
    patches = 2 * 4 * 16 * (8 * 8 * 3) * 64  # no gradient by the pixels
    down = 3 * 2 * 4 * 17 * 256 * 64  # what the last product of a block gives is not needed again
    assert step == 3 * forward - patches + (forward - patches - down if remat == "full" else 0)


def test_loops_branches_convolutions_and_devices():
    x, w = jnp.ones((8, 4)), jnp.ones((4, 4))
    product = 2 * 8 * 4 * 4
    assert traced_flops(lambda: jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)) == 7 * product
    assert traced_flops(lambda i: jax.lax.cond(i, lambda: x @ w @ w, lambda: x @ w), True) == 2 * product
    picture, kernel = jnp.ones((1, 6, 6, 3)), jnp.ones((2, 2, 3, 5))
    convolve = lambda: jax.lax.conv_general_dilated(
        picture, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert traced_flops(convolve) == 2 * (5 * 5 * 5) * (2 * 2 * 3)
    mesh = jax.make_mesh((4,), ("a",), axis_types=(AxisType.Auto,))
    each = jax.shard_map(lambda x: x @ w, mesh=mesh, in_specs=P("a"), out_specs=P("a"))
    assert traced_flops(each, x) == product


@pytest.mark.parametrize("axes", ["a", "b", "ab"])
def test_a_map_over_some_axes_counts_as_often_as_it_is_run_by_hand(axes):
    """The other axes cut a body's products, which are written once for all of them."""
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    x, w = jnp.ones((8, 4)), jnp.ones((4, 4))
    each = jax.shard_map(
        lambda x: x @ w, mesh=mesh, in_specs=P(tuple(axes)), out_specs=P(tuple(axes)), axis_names=set(axes)
    )
    assert traced_flops(jax.jit(each), x) == 2 * 8 * 4 * 4


def test_a_compiled_program_on_several_devices():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    on = lambda shape, *axes: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))

    def program(x, w):
        y = x @ w
        return y, x.T @ y

    traced = jax.jit(program).trace(on((64, 256), "a"), on((256, 128)))
    cost = cost_of(traced, traced.lower().compile(), devices=8)
    assert cost.flops == 2 * (2 * 64 * 256 * 128)
    assert cost.arguments == 4 * (8 * 256 + 256 * 128)
    assert cost.outputs >= 4 * (8 * 128 + 256 * 128 / 8)
    assert cost.flops / 8 <= cost.device_flops < 1.2 * cost.flops / 8
    assert cost.peak == cost.arguments + cost.temporaries + cost.outputs
    assert cost.sent["all-reduce"] + cost.sent["reduce-scatter"] > 0
