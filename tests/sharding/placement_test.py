"""Parameters and batches really are cut."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from contextjax.sharding import init_sharded, make_mesh, place_batch, state_shardings
from contextjax.sharding.placement import RULES, logical_spec


@pytest.mark.parametrize(
    ("axes", "shape", "spec"),
    [
        (("embed", "mlp"), (8, 8), ("fsdp", "tensor")),
        (("embed", None, "heads"), (8, 3, 8), ("fsdp", None, "tensor")),
        (("vocab", "embed"), (7, 8), (None, "fsdp")),  # 7 does not divide by 2
        (("heads", "mlp"), (8, 8), ("tensor", None)),  # an axis is used once
        ((None, "projection"), (8, 8), (None, None)),
        ((), (), ()),
    ],
)
def test_logical_axes_become_mesh_axes(axes, shape, spec):
    assert logical_spec(axes, shape, make_mesh("data:1,fsdp:4,tensor:2")) == PartitionSpec(*spec)


def test_only_parameters_are_cut():
    mesh = make_mesh("fsdp:8")
    boxed = {"kernel": nn.Partitioned(jax.ShapeDtypeStruct((8, 3), np.float32), ("embed", None)), "step": jnp.int32(0)}
    shardings = state_shardings(boxed, mesh)
    assert shardings["kernel"].spec == PartitionSpec("fsdp", None) and shardings["step"].spec == PartitionSpec()


def test_every_name_of_the_model_has_a_rule(tiny):
    model = tiny.model(fusion_self_attention=True)
    inputs = tiny.pictures(1), *tiny.texts(1)
    boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    leaves = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))
    assert all(isinstance(leaf, nn.Partitioned) for leaf in leaves)
    assert {name for leaf in leaves for name in leaf.names} - {None} == set(RULES)


def test_parameters_and_moments_are_cut_on_fsdp_from_the_start(tiny):
    model = tiny.model()
    inputs = tiny.pictures(1), *tiny.texts(1)
    optimizer = optax.adam(1e-3)

    def init():
        params = model.init(jax.random.key(0), *inputs)["params"]
        return params, optimizer.init(params)

    (params, moments), _ = init_sharded(init, make_mesh("fsdp:4,data:2"))
    for tree in (params, moments[0].mu, moments[0].nu):
        sizes = [(x.size, x.addressable_shards[0].data.size) for x in jax.tree.leaves(tree)]
        whole, local = (sum(column) for column in zip(*sizes, strict=True))
        assert local < 0.3 * whole
    kernel = params["fusion_0"]["mlp"]["up"]["kernel"]
    assert kernel.shape == (16, 64) and kernel.addressable_shards[0].data.shape == (4, 64)


def test_batches_are_cut_along_their_first_axis_where_it_divides(tiny):
    batch = jax.tree.map(np.asarray, tiny.batch(8, 2, phrases=6))
    placed = place_batch(batch, make_mesh("data:4,tensor:2"))
    jax.tree.map(np.testing.assert_array_equal, placed, batch)
    assert placed.references.addressable_shards[0].data.shape[0] == 2
    assert placed.phrases.text.sharding.is_fully_replicated  # of one group
