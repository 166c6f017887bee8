"""Placement by logical axes: by the rules in force, and not at all where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from contextjax.models.placed import batch_parts, logical, placed, platform
from contextjax.sharding import activations, make_mesh

X = jnp.arange(8 * 4 * 6, dtype=jnp.float32).reshape(8, 4, 6)


def test_without_rules_nothing_is_placed():
    assert placed(X) is X and batch_parts() == 1 and platform() == "cpu"


def test_rules_place_what_they_divide():
    with activations(make_mesh("data:2,fsdp:2,tensor:2")):
        assert batch_parts() == 4
        y = jax.jit(lambda x: placed(x, "heads", None))(X)
        odd = jax.jit(lambda x: placed(x, "heads", None))(X[:, :3])  # which two devices do not share evenly
    assert y.sharding.shard_shape(y.shape) == (2, 2, 6)
    assert odd.sharding.shard_shape(odd.shape)[0] == 2
    np.testing.assert_array_equal(y, X)


def test_an_initialiser_names_its_axes():
    boxed = logical(jax.nn.initializers.zeros, "embed", None)(jax.random.key(0), (2, 3))
    assert isinstance(boxed, meta.AxisMetadata) and boxed.names == ("embed", None) and boxed.value.shape == (2, 3)
