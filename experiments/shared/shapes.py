"""Shapes of a batch's arrays, for programs that are compiled without data."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from contextjax.types import Tokens


def pixels(*shape: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of pictures, uint8 [..., S, S, 3]; the last of `shape` is their side S."""
    return jax.ShapeDtypeStruct((*shape, shape[-1], 3), jnp.uint8)


def integers(*shape: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of an int32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def booleans(*shape: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of a bool array."""
    return jax.ShapeDtypeStruct(shape, jnp.bool_)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    """Returns the shape of a float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def abstract_tokens(*shape: int) -> Tokens:
    """Returns the shapes of ids and mask."""
    return Tokens(integers(*shape), booleans(*shape))
