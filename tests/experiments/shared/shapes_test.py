"""Shapes of batches, without arrays."""

import jax.numpy as jnp

from experiments.shared.shapes import abstract_tokens, booleans, floats, integers, pixels


def test_shapes_and_types():
    assert (pixels(2, 3, 8).shape, pixels(2, 3, 8).dtype) == ((2, 3, 8, 8, 3), jnp.uint8)
    assert [make(4, 5).dtype for make in (integers, booleans, floats)] == [jnp.int32, jnp.bool_, jnp.float32]
    ids, mask = abstract_tokens(4, 7)
    assert ids.shape == mask.shape == (4, 7) and mask.dtype == jnp.bool_
