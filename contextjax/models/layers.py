"""Attention, MLP and transformer blocks, of which every tower is made.

Initialisers and `placed` name logical axes (`contextjax.types` lists them); the config says where on a mesh they go.
Leading axes broadcast: image tokens [R, 1, I, W] may attend to texts [R, M, T, W], so that what does not depend on the
text is computed once for each reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float, Int

from contextjax.types import UserError

ACTIVATIONS: dict[str, Callable] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,  # the tanh approximation, under both of its names
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
}
ATTENTIONS = ("xla", "cudnn")  # implementations of self-attention; cuDNN's keeps no weights [heads, q, k] in memory
# What a tower's blocks keep for the gradient: everything, the results of matmuls, or their inputs alone. The rest is
# computed again: the same numbers with less memory.
REMATS: dict[str, Any] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
NEAR = 32 << 20  # bytes of a TPU's memory beside its cores that attention's logits may take, of 95 to 128 MiB


def _keeps_half(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Returns whether a result is kept for the gradient: not if it is float32 where the tower computes in bfloat16."""
    made = params.get("new_dtype") or params.get("preferred_element_type")
    return all(x.dtype != jnp.float32 for x in (*inputs, *((jnp.zeros((), made),) if made else ())))


def logical(initializer: Callable, *axes: str | None) -> Callable:
    """Adds the logical names of its axes to an initialiser."""
    return nn.with_logical_partitioning(initializer, axes)


def placed(x: Array, *last: str | None, first: str | None = "batch") -> Array:
    """Constrains where an activation is placed: `first` names its first axis, `last` its last ones.

    The rules in force (sharding.activations) say what a name means; an axis that they do not divide evenly is left to
    the compiler. Without rules, nothing happens.
    """
    rules, sizes = dict(nn.get_logical_axis_rules()), jax.sharding.get_abstract_mesh().shape
    if not rules:
        return x
    parts = lambda name: math.prod(sizes[axis] for axis in rules[name] or ()) if name else 1
    names = (first, *(None,) * (x.ndim - 1 - len(last)), *last)
    return with_logical_constraint(
        x, tuple(name if size % parts(name) == 0 else None for name, size in zip(names, x.shape, strict=True))
    )


def embed_tokens(table: nn.Embed, ids: Int[Array, "*batch t"]) -> Float[Array, "*batch t width"]:
    """Looks up token embeddings in a table whose columns may be on several devices.

    Each device looks up its columns for the texts of all devices, then they exchange rows; XLA's own choice would
    replicate the result on every device.
    """
    return placed(placed(table(placed(ids, first="lookup")), "embed", first="lookup"))


def dense(features: int, axes: tuple[str | None, str | None], *, name: str | None = None, use_bias: bool = True,
          dtype: Any = None, init: Callable | None = None) -> nn.Dense:  # fmt: skip
    """Returns a Dense layer whose kernel [in, out] has the logical axes `axes`."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=logical(init or nn.initializers.lecun_normal(), *axes),
        bias_init=logical(nn.initializers.zeros, axes[1]),
        name=name,
    )


def head(features: int, axes: tuple[str | None, str | None], **options: Any) -> nn.Dense:
    """Returns a Dense layer in float32 for outputs that are compared or ranked.

    The towers may compute in bfloat16, in which the scores of nearly equal pictures would tie.
    """
    return dense(features, axes, dtype=jnp.float32, **options)


def layer_norm(epsilon: float, *, name: str | None = None, dtype: Any = None) -> nn.LayerNorm:
    """Returns a LayerNorm over the last axis, with statistics in float32."""
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=dtype,
        scale_init=logical(nn.initializers.ones, "embed"),
        bias_init=logical(nn.initializers.zeros, "embed"),
        name=name,
    )


def normalize(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """L2-normalises the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


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
    rows, parts = query.shape[0], _batch_parts()
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


def _chunk(query: Array, key: Array, mask: Array | None) -> int:
    """Returns how many rows of each device are attended to at once on a TPU; 0: all, or there is no TPU."""
    if platform() != "tpu" or query.ndim != 4 or not isinstance(query.shape[0], int):
        return 0
    rows, left = divmod(query.shape[0], _batch_parts())
    if left or (mask is not None and mask.ndim > 2 and (mask.ndim != 4 or mask.shape[0] not in (1, query.shape[0]))):
        return 0
    heads, padded = query.shape[2], lambda size, tile: -(-size // tile) * tile
    each = 4 * heads * padded(query.shape[1], 8) * padded(key.shape[1], 128)  # bytes of a row's logits
    return max(size for size in range(1, rows + 1) if rows % size == 0 and (size == 1 or size * each <= NEAR))


def _batch_parts() -> int:
    """Returns how many parts the devices cut a batch into, by the rules in force."""
    rules, sizes = dict(nn.get_logical_axis_rules()), jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes[axis] for axis in rules.get("batch") or ())


def platform() -> str:
    """Returns the platform of the devices that a program is traced for: "cpu", "tpu", "gpu" or "cuda"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


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


def _check_cudnn(dtype: Any) -> None:
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


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection to query, key and value; `attention` is in ATTENTIONS."""

    heads: int
    dtype: Any = None
    out_init: Callable | None = None
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n width"], mask: Bool[Array, ...] | None = None):
        width = x.shape[-1]
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=2, batch_axis=1)
        kernel = self.param("qkv_kernel", logical(init, "embed", None, "heads"), (width, 3, width))
        bias = self.param("qkv_bias", logical(nn.initializers.zeros, None, "heads"), (3, width))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        # [3, width], not [3 * width]: a device's heads are then a slice of query, of key and of value. In the product
        # the 3 comes first, so that each lies in one piece: a TPU would copy them.
        qkv = jnp.einsum("...w,wtd->t...d", x, kernel) + bias.reshape(3, *(1,) * (x.ndim - 1), width)
        split = lambda y: placed(y.reshape(*y.shape[:-1], self.heads, -1), "heads", None)
        query, key, value = (split(qkv[i]) for i in range(3))
        if self.attention == "cudnn":
            _check_cudnn(query.dtype)
            out = fused_attend(query, key, value, mask)
        elif chunk := _chunk(query, key, mask):
            out = attend_in_chunks(query, key, value, mask, chunk)
        else:
            out, _ = attend(query, key, value, mask)
        project = dense(width, ("heads", "embed"), name="out", dtype=self.dtype, init=self.out_init)
        return project(out.reshape(x.shape))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens x to a context of another width."""

    heads: int
    dtype: Any = None
    out_init: Callable | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*#batch q width"],
        context: Float[Array, "... k context_width"],
        mask: Bool[Array, ...] | None = None,
        *,
        rows: Any = None,
    ):
        """Returns (output [..., q, width], weights [..., heads, q, k]).

        Args:
          x: tokens that read.
          context: tokens that are read.
          mask: True where a token may be read; broadcasts against the weights.
          rows: int [N], the context in [..., C, k, context_width] that each of x [..., N, q, width] reads; None: C is
            N, or 1.
        """
        width = x.shape[-1]
        split = lambda y: placed(y.reshape(*y.shape[:-1], self.heads, -1), "heads", None)
        query, key, value = (
            split(dense(width, ("embed", "heads"), name=name, dtype=self.dtype)(y))
            for name, y in (("query", x), ("key", context), ("value", context))
        )
        if rows is not None:
            key, value = jnp.take(key, rows, axis=-4), jnp.take(value, rows, axis=-4)
        out, weights = attend(query, key, value, mask)
        out = out.reshape(*out.shape[:-2], width)
        return dense(width, ("heads", "embed"), name="out", dtype=self.dtype, init=self.out_init)(out), weights


class Mlp(nn.Module):
    """Two Linear layers with an activation between them."""

    hidden: int
    activation: str
    dtype: Any = None
    out_init: Callable | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        hidden = placed(dense(self.hidden, ("embed", "mlp"), name="up", dtype=self.dtype)(x), "mlp")
        out = dense(x.shape[-1], ("mlp", "embed"), name="down", dtype=self.dtype, init=self.out_init)
        return out(ACTIVATIONS[self.activation](hidden))


class TransformerBlock(nn.Module):
    """Pre-LN block: x += SelfAttention(LN(x)); x += Mlp(LN(x))."""

    heads: int
    mlp: int
    activation: str
    epsilon: float
    dtype: Any = None
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n width"], mask: Bool[Array, ...] | None = None):
        normed = layer_norm(self.epsilon, name="attention_norm", dtype=self.dtype)(x)
        read = SelfAttention(self.heads, self.dtype, attention=self.attention, name="attention")
        x = placed(x + read(normed, mask))
        normed = layer_norm(self.epsilon, name="mlp_norm", dtype=self.dtype)(x)
        return placed(x + Mlp(self.mlp, self.activation, self.dtype, name="mlp")(normed))


def run_blocks(
    block: type[nn.Module], tower: Any, dtype: Any, x: Any, *inputs: Any, taps: Sequence[int] = ()
) -> tuple[Any, tuple[Any, ...]]:
    """Runs a tower's blocks one after the other, each as block(x, *inputs), inside a module's compact method.

    Args:
      block: TransformerBlock, or another with the same settings.
      tower: a config with layers, heads, mlp, activation and epsilon, and with options that change no number: `scan`
        compiles one block instead of all, and stacks their parameters along a first axis under "layers" instead of
        "layer_0", "layer_1", ...; `remat` is in REMATS, `attention` in ATTENTIONS.
      dtype: dtype of the computation.
      x: input of the first block: [..., N, width], or a tree.
      *inputs: further arguments, the same for all blocks.
      taps: numbers of blocks, from 1, whose outputs are returned too.

    Returns:
      (output of the last block, outputs of the blocks in `taps`).
    """
    make = block
    if tower.remat != "none":
        make = nn.remat(block, prevent_cse=not tower.scan, policy=REMATS[tower.remat])
    elif tower.scan and dtype == jnp.bfloat16:  # stacked, float32 between two of bfloat16 takes most of the memory
        make = nn.remat(block, prevent_cse=False, policy=_keeps_half)
    settings = (tower.heads, tower.mlp, tower.activation, tower.epsilon, dtype)
    named = lambda name: make(*settings, attention=tower.attention, name=name)
    if not tower.scan:
        after = [x]
        for i in range(tower.layers):
            after.append(named(f"layer_{i}")(after[-1], *inputs))
        return after[-1], tuple(after[tap] for tap in taps)

    def body(module: nn.Module, x: Any, *inputs: Any):
        x = module(x, *inputs)
        return x, (x if taps else None)

    step = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType] (flax's own annotation is narrower)
        length=tower.layers,
        metadata_params={nn.PARTITION_NAME: None},
    )
    x, after = step(named("layers"), x, *inputs)
    return x, tuple(jax.tree.map(lambda stacked: stacked[tap - 1], after) for tap in taps)  # noqa: B023


class AttentionPooling(nn.Module):
    """Pools tokens by the attention of one learned query to all of them, then LayerNorm."""

    heads: int
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n width"]) -> Float[Array, "*batch width"]:
        width = x.shape[-1]
        query = self.param("query", logical(nn.initializers.normal(width**-0.5), None, "embed"), (1, width))
        pooled, _ = CrossAttention(self.heads, self.dtype, name="attention")(query, x)
        return layer_norm(self.epsilon, name="norm", dtype=self.dtype)(pooled[..., 0, :])


class GridPooling(nn.Module):
    """Pools tokens by one Linear over all of them side by side, so that a weight knows the place of its token.

    Small towers trained from scratch need this to distinguish "a dog left of a bus" from "a bus left of a dog". With a
    pooled average, query and gallery side have to learn the places at the same time, and stay at chance for long.
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n width"]) -> Float[Array, "*batch width"]:
        width = x.shape[-1]
        return dense(width, (None, "embed"), name="read", dtype=self.dtype)(x.reshape(*x.shape[:-2], -1))
