"""Vision transformer (ViT): uint8 pixels -> tokens and a pooled state."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from contextjax.models.layers import (
    ACTIVATIONS,
    GridPooling,
    PoolingHead,
    TransformerBlock,
    dense,
    layer_norm,
    logical,
    placed,
    run_blocks,
)
from contextjax.models.linear import spread
from contextjax.types import UserError


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Sizes and options of a vision tower. The defaults are CLIP's.

    BLIP has no pre_norm, a patch_bias and "squash"; SigLIP has these and the pooling "attention".
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    pre_norm: bool = True  # LayerNorm between the embeddings and the first block
    patch_bias: bool = False
    stem: tuple[int, int] | None = None  # (block, width): a Linear on block x block pixels before the patches
    # Or "grid": see layers.GridPooling; or "attention": layers.PoolingHead, and there is no class token.
    pooling: str = "cls"
    position_std: float | None = None  # scale of the initial position embedding; None: width ** -0.5
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    fit: str = "crop"  # how pictures are made square, see images.preprocess
    taps: tuple[int, ...] = ()  # numbers of blocks, from 1, whose tokens are returned too
    scan: bool = False  # see layers.run_blocks
    remat: str = "none"
    attention: str = "xla"

    @property
    def class_tokens(self) -> int:
        """The number of tokens before the patches': that of the class, or none."""
        return int(self.pooling != "attention")


def check_image_size(image_size: int, patch_size: int, where: str) -> None:
    """Raises a UserError where patches of this size do not fill pictures of that one; `where` names it."""
    if image_size < patch_size or image_size % patch_size:
        below = image_size // patch_size * patch_size
        near = " or ".join(str(size) for size in (below, below + patch_size) if size)
        raise UserError(f"{where} is {image_size}; expected a multiple of {patch_size}, the patch size: {near}.")


class VisionOutput(NamedTuple):
    """The states of a vision tower."""

    tokens: Any  # [B, class_tokens + patches, width], CLS first, before the final LayerNorm
    pooled: Any  # [B, width], after the final LayerNorm; None where only some patches were encoded
    taps: tuple[Any, ...] = ()  # tokens after each block that the config names


def blocks(x: Float[Array, "*b h w c"], side: int) -> Float[Array, "*b rows columns features"]:
    """Cuts a grid into blocks of side x side cells; a block's features are in (row, column, channel) order."""
    *lead, height, width, channels = x.shape
    if height % side or width % side:  # the rest is not seen, as in PyTorch's convolutions
        height, width = height // side * side, width // side * side
        x = x[..., :height, :width, :]
    x = x.reshape(*lead, height // side, side, width // side, side, channels)
    return jnp.moveaxis(x, -4, -3).reshape(*lead, height // side, width // side, side * side * channels)


class VisionTransformer(nn.Module):
    """ViT with learned positions (Dosovitskiy et al. 2021; CLIP, Radford et al. 2021; SigLIP, Zhai et al. 2023)."""

    config: VisionConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        if c.pooling == "grid":
            self.pooling = GridPooling(self.dtype)
        elif c.pooling == "attention":
            self.pooling = PoolingHead(c.heads, c.mlp, c.activation, c.epsilon, self.dtype)
        self.post_norm = layer_norm(self.config.epsilon, dtype=self.dtype)

    def pool(self, tokens: Float[Array, "*batch n width"]) -> Float[Array, "*batch width"]:
        """Returns the pooled state of tokens after the final LayerNorm."""
        if self.config.pooling == "attention":
            return self.pooling(self.post_norm(tokens))
        return self.post_norm(self.pooling(tokens) if self.config.pooling == "grid" else tokens[..., 0, :])

    def pool_normalized(self, tokens: Float[Array, "*batch n width"]) -> Float[Array, "*batch width"]:
        """Returns the pooled state of tokens that have been through the final LayerNorm already."""
        if self.config.pooling == "attention":
            return self.pooling(tokens)
        return self.pool(tokens) if self.config.pooling == "grid" else tokens[..., 0, :]

    def normalize(self, tokens: Float[Array, "*batch n width"]) -> Float[Array, "*batch n width"]:
        """Returns all tokens after the final LayerNorm, as BLIP's text encoder reads them."""
        return self.post_norm(tokens)

    def __call__(self, images: UInt8[Array, "batch height width 3"]) -> VisionOutput:
        """Returns tokens, pooled state and taps of pictures."""
        return self.encode(self.patchify(images))

    def patchify(self, images: UInt8[Array, "batch height width 3"]) -> Float[Array, "batch patches pixels"]:
        """Returns normalised pixels, float32: patches in raster order, a patch's pixels by (row, column, channel)."""
        c = self.config
        std = jnp.asarray(c.std, jnp.float32)
        x = blocks((images.astype(jnp.float32) / 255 - jnp.asarray(c.mean, jnp.float32)) / std, c.patch_size)
        return x.reshape(x.shape[0], -1, x.shape[-1])

    @nn.compact
    def encode(
        self, patches: Float[Array, "batch patches pixels"], visible: Int[Array, "batch v"] | None = None
    ) -> VisionOutput:
        """Encodes the patches of `patchify`; with `visible`, only the patches of these numbers, in this order."""
        c = self.config
        patches = patches.astype(self.dtype or jnp.float32)
        if visible is not None:
            patches = jnp.take_along_axis(patches, visible[..., None], axis=1)
        if c.stem:
            block, width = c.stem
            x = blocks(patches.reshape(*patches.shape[:-1], c.patch_size, c.patch_size, 3), block)
            x = ACTIVATIONS[c.activation](dense(width, (None, None), name="stem", dtype=self.dtype)(x))
            patches = x.reshape(*patches.shape[:-1], -1)
        x = dense(c.width, (None, "embed"), name="patch_embedding", use_bias=c.patch_bias, dtype=self.dtype)(patches)
        x = placed(x)
        normal = nn.initializers.normal(c.width**-0.5)
        if c.class_tokens:
            cls = self.param("class_embedding", logical(normal, "embed"), (c.width,))
            x = jnp.concatenate([spread(cls, x[:, :1]), x], axis=1)
        positions = nn.initializers.normal(c.position_std) if c.position_std else normal
        count = c.class_tokens + (c.image_size // c.patch_size) ** 2
        positions = self.param("position_embedding", logical(positions, None, "embed"), (count, c.width))
        if visible is not None:
            cls_first = jnp.zeros((len(x), c.class_tokens), visible.dtype)
            cls_first = jnp.concatenate([cls_first, visible + c.class_tokens], axis=1)
            positions = placed(positions, first=None)[cls_first]
        x = x + spread(positions, x)
        if c.pre_norm:
            x = layer_norm(c.epsilon, name="pre_norm", dtype=self.dtype)(x)
        x, taps = run_blocks(TransformerBlock, c, self.dtype, x, taps=c.taps)
        return VisionOutput(x, self.pool(x) if visible is None else None, taps)
