"""Shapes of a batch's arrays, for programs that are compiled without data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from contextjax.types import ComposedBatch, Tokens


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


def abstract_composed(config: Any, *, with_captions: bool) -> ComposedBatch:
    """Returns a global batch of composed queries as shapes, without noun phrases."""
    d = config.data
    size, r, m = config.model.vision["image_size"], d.batch_size, d.modifications
    return ComposedBatch(
        references=pixels(r, size),
        targets=pixels(r, m, size),
        texts=abstract_tokens(r, m, d.text_length),
        valid=booleans(r, m),
        reference_ids=integers(r),
        target_ids=integers(r, m),
        records=integers(r, m),
        captions=abstract_tokens(r, 1 + m, d.caption_length) if with_captions else None,
    )
