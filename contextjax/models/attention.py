"""Scaled dot-product attention: with its weights, a few rows at a time, and in cuDNN's kernel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from contextjax.models.placed import batch_parts, placed, platform
from contextjax.types import UserError

NEAR = 32 << 20  # bytes of a TPU's memory beside its cores that attention's logits may take, of 95 to 128 MiB


def attend(
    query: Float[Array, "*#batch q heads depth"],
    key: Float[Array, "*#batch k heads depth"],
    value: Float[Array, "*#batch k heads depth"],
    mask: Bool[Array, ...] | None,
) -> tuple[Float[Array, "*batch q heads depth"], Float[Array, "*batch heads q k"]]:
    """Computes scaled dot-product attention, with the softmax in float32.

    Args:
      query: one vector for each of q tokens and each head.
      key: of k tokens.
      value: of k tokens.
      mask: True where a key may be seen; broadcasts against [..., heads, q, k].

    Returns:
      (output, attention weights).
    """
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("...qhd,...khd->...hqk", scaled, key, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("...hqk,...khd->...qhd", weights.astype(value.dtype), value), weights


def attend_in_chunks(
    query: Float[Array, "rows q heads depth"],
    key: Float[Array, "rows k heads depth"],
    value: Float[Array, "rows k heads depth"],
    mask: Bool[Array, ...] | None,
    chunk: int,
) -> Float[Array, "rows q heads depth"]:
    """Computes the output of `attend` for `chunk` rows of each device after the other, and again for the gradient.

    The weights [heads, q, k] of so few rows stay in a TPU's memory beside its cores; those of all rows would be written
    to its main memory and read back several times.
    """
    rows, parts = query.shape[0], batch_parts()
    count = rows // parts // chunk
    per_row = mask is not None and mask.ndim == 4 and mask.shape[0] == rows

    def cut(x):  # [rows, ...] -> [count, parts * chunk, ...], rows of a device next to each other
        x = jnp.moveaxis(x.reshape(parts, count, chunk, *x.shape[1:]), 1, 0)
        return x.reshape(count, parts * chunk, *x.shape[3:])

    @jax.checkpoint
    def attend_to(inputs):
        query, key, value, *masks = (placed(x) for x in inputs)
        return placed(attend(query, key, value, masks[0] if masks else mask)[0], "heads", None)

    inputs = (query, key, value, *((mask,) if per_row else ()))
    if count == 1:
        return attend_to(inputs)
    out = jax.lax.map(attend_to, tuple(cut(x) for x in inputs))
    out = jnp.moveaxis(out.reshape(count, parts, chunk, *query.shape[1:]), 0, 1)
    return out.reshape(query.shape)


def rows_at_once(query: Array, key: Array, mask: Array | None) -> int:
    """Returns how many rows of each device are attended to at once on a TPU; 0: all, or there is no TPU."""
    if platform() != "tpu" or query.ndim != 4 or not isinstance(query.shape[0], int):
        return 0
    rows, left = divmod(query.shape[0], batch_parts())
    if left or (mask is not None and mask.ndim > 2 and (mask.ndim != 4 or mask.shape[0] not in (1, query.shape[0]))):
        return 0
    heads, padded = query.shape[2], lambda size, tile: -(-size // tile) * tile
    each = 4 * heads * padded(query.shape[1], 8) * padded(key.shape[1], 128)  # bytes of a row's logits
    return max(size for size in range(1, rows + 1) if rows % size == 0 and (size == 1 or size * each <= NEAR))


def fused_attend(
    query: Float[Array, "*batch q heads depth"],
    key: Float[Array, "*batch k heads depth"],
    value: Float[Array, "*batch k heads depth"],
    mask: Bool[Array, ...] | None,
    implementation: Any = "cudnn",
) -> Float[Array, "*batch q heads depth"]:
    """Computes the output of `attend` in one kernel (jax.nn.dot_product_attention), which keeps no weights.

    cuDNN computes gradients for even numbers of tokens alone: an odd one gets a token more, which no other sees.
    """
    tokens, keys = query.shape[-3], key.shape[-3]
    if mask is not None:
        heads = mask.shape[-3] if mask.ndim > 2 else 1
        mask = jnp.broadcast_to(mask, (*query.shape[:-3], heads, tokens, keys))
        mask = mask.reshape(-1, *mask.shape[-3:])
    elif keys % 2:
        mask = jnp.ones((1, 1, tokens, keys), bool)
    if mask is not None:
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, tokens % 2), (0, 0)), constant_values=True)
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, keys % 2)))
    even = lambda x: jnp.pad(x.reshape(-1, *x.shape[-3:]), ((0, 0), (0, x.shape[-3] % 2), (0, 0), (0, 0)))
    inputs = (even(query), even(key), even(value))
    out = jax.nn.dot_product_attention(*inputs, mask=mask, implementation=implementation)
    return out[:, :tokens].reshape(query.shape)


def check_cudnn(dtype: Any) -> None:
    """Checks that a program is for a CUDA device and computes in half precision.

    Raises:
      UserError: it is not, or does not.
    """
    if platform() not in ("gpu", "cuda"):
        raise UserError(
            f"A tower's attention is 'cudnn', but there is no CUDA device (JAX runs on {platform()}); set "
            "--config.model.vision.attention=xla and --config.model.text.attention=xla."
        )
    if dtype not in (jnp.bfloat16, jnp.float16):
        raise UserError(
            f"A tower's attention is 'cudnn', which computes in half precision, not in {jnp.dtype(dtype).name}; set "
            "--config.model.dtype=bfloat16, or the tower's attention to xla."
        )
