"""Attention, MLP and transformer blocks, of which every tower is made.

Initialisers and `placed` name logical axes (`contextjax.types` lists them); the config says where on a mesh they go.
Leading axes broadcast: image tokens [R, 1, I, W] may attend to texts [R, M, T, W], so that what does not depend on the
text is computed once for each reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from contextjax.models.attention import attend, attend_in_chunks, check_cudnn, fused_attend, rows_at_once
from contextjax.models.linear import Dense, product, spread
from contextjax.models.placed import logical, placed

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


FEW = 4  # contexts that are selected from instead of gathered


def _keeps_half(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Returns whether a result is kept for the gradient: a product's, if neither it nor its factors are float32.

    What lies between two products is computed again: stacked over the layers of a tower that computes in bfloat16, its
    float32 norms and its activations would take most of the memory.
    """
    made = params.get("preferred_element_type")
    types = [x.dtype for x in inputs] + [jnp.dtype(made)] * (made is not None)
    return primitive.name == "dot_general" and jnp.float32 not in types


def embed_tokens(table: nn.Embed, ids: Int[Array, "*batch t"], dtype: Any = None) -> Float[Array, "*batch t width"]:
    """Looks up token embeddings, as `dtype`, in a float32 table whose columns may be on several devices.

    Each device looks up its columns for the texts of all devices, then they exchange rows; XLA's own choice would
    replicate the result on every device.
    """
    x = table(placed(ids, first="lookup"))
    return placed(placed(x.astype(dtype or x.dtype), "embed", first="lookup"))


def dense(features: int, axes: tuple[str | None, str | None], *, name: str | None = None, use_bias: bool = True,
          dtype: Any = None, init: Callable | None = None) -> Dense:  # fmt: skip
    """Returns a Dense layer whose kernel [in, out] has the logical axes `axes`."""
    return Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=logical(init or nn.initializers.lecun_normal(), *axes),
        bias_init=logical(nn.initializers.zeros, axes[1]),
        name=name,
    )


def head(features: int, axes: tuple[str | None, str | None], **options: Any) -> Dense:
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


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection to query, key and value; `attention` is in ATTENTIONS."""

    heads: int
    dtype: Any = None
    out_init: Callable | None = None
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch n width"],
        mask: Bool[Array, ...] | None = None,
        *,
        context: Float[Array, "*batch k width"] | None = None,
    ):
        """Returns what tokens x have read of each other, or of a context that the same projection makes keys of."""
        width = x.shape[-1]
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0, out_axis=2, batch_axis=1)
        kernel = self.param("qkv_kernel", logical(init, "embed", None, "heads"), (width, 3, width))
        bias = self.param("qkv_bias", logical(nn.initializers.zeros, None, "heads"), (3, width))
        x = x.astype(self.dtype or jnp.result_type(x, kernel))

        # [3, width], not [3 * width]: a device's heads are then a slice of query, of key and of value. In the product
        # the 3 comes first, so that each lies in one piece: a TPU would copy them.
        def project(x: Any, kernel: Any, bias: Any) -> Any:
            made: Array = product("...w,wtd->t...d", x, kernel)
            return made + spread(bias.reshape(len(bias), *(1,) * (x.ndim - 1), width), made)

        if context is None:
            qkv = project(x, kernel, bias)
        else:
            qkv = (*project(x, kernel[:, :1], bias[:1]), *project(context.astype(x.dtype), kernel[:, 1:], bias[1:]))
        split = lambda y: placed(y.reshape(*y.shape[:-1], self.heads, -1), "heads", None)
        query, key, value = (split(qkv[i]) for i in range(3))
        if self.attention == "cudnn":
            check_cudnn(query.dtype)
            out = fused_attend(query, key, value, mask)
        elif chunk := rows_at_once(query, key, mask):
            out = attend_in_chunks(query, key, value, mask, chunk)
        else:
            out, _ = attend(query, key, value, mask)
        return dense(width, ("heads", "embed"), name="out", dtype=self.dtype, init=self.out_init)(out.reshape(x.shape))


def contexts_of(x: Float[Array, "... c k width"], rows: Any) -> Float[Array, "... n k width"]:
    """Returns the context that each of N texts reads, `rows` [N].

    Of a few contexts they are selected: the gradient of a gather adds up one text after the other, in a loop. An
    exported program does not know how many there are, and gathers.
    """
    rows = jnp.asarray(rows)
    if not isinstance(x.shape[-3], int) or x.shape[-3] > FEW:
        return jnp.take(x, rows, axis=-3)
    picked = x[..., :1, :, :]
    for i in range(1, x.shape[-3]):
        picked = jnp.where((rows == i)[:, None, None], x[..., i : i + 1, :, :], picked)
    return jnp.broadcast_to(picked, (*x.shape[:-3], len(rows), *x.shape[-2:]))


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
            dense(width, ("embed", "heads"), name=name, dtype=self.dtype)(y)
            for name, y in (("query", x), ("key", context), ("value", context))
        )
        if rows is not None:  # before they are split: heads of 64 numbers would be sent and kept in tiles of 128
            key, value = contexts_of(key, rows), contexts_of(value, rows)
        query, key, value = split(query), split(key), split(value)
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


def _learned_query(module: nn.Module, x: Float[Array, "*batch n width"]) -> Float[Array, "*batch 1 width"]:
    """Returns the parameter `query` of a module for each row of x."""
    width = x.shape[-1]
    query = module.param("query", logical(nn.initializers.normal(width**-0.5), None, "embed"), (1, width))
    # For each row: the gradient of one query for all would be summed in the type of the computation.
    return jnp.broadcast_to(query, (*x.shape[:-2], 1, width))


class AttentionPooling(nn.Module):
    """Pools tokens by the attention of one learned query to all of them, then LayerNorm."""

    heads: int
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n width"]) -> Float[Array, "*batch width"]:
        pooled, _ = CrossAttention(self.heads, self.dtype, name="attention")(_learned_query(self, x), x)
        return layer_norm(self.epsilon, name="norm", dtype=self.dtype)(pooled[..., 0, :])


class PoolingHead(nn.Module):
    """Pools tokens by the attention of one learned query to all of them, then x += Mlp(LN(x)) (SigLIP's "MAP head").

    What follows the attention is in float32, since the result is compared as it is, see `head`.
    """

    heads: int
    mlp: int
    activation: str
    epsilon: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch n width"]) -> Float[Array, "*batch width"]:
        pooled = SelfAttention(self.heads, self.dtype, name="attention")(_learned_query(self, x), context=x)[..., 0, :]
        pooled = pooled.astype(jnp.float32)
        normed = layer_norm(self.epsilon, name="norm", dtype=jnp.float32)(pooled)
        return pooled + Mlp(self.mlp, self.activation, jnp.float32, name="mlp")(normed)


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
