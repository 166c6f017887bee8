"""ConText-CIR: a picture and a modification text become one query embedding (CVPR 2025, arXiv 2505.20764)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.models.fusion import FusionBlock
from contextjax.models.layers import AttentionPooling, head, normalize

QUERIES = ("fusion", "image", "text", "sum")
HEADS = ("own", "gallery")


@dataclasses.dataclass(frozen=True)
class ContextCIRConfig:
    """CLIP and what ConText-CIR adds on the query side. The defaults are the paper's."""

    clip: CLIPConfig
    fusion_layers: int = 4
    fusion_heads: int = 8
    fusion_activation: str = "gelu"
    fusion_self_attention: bool = False
    fusion_head: str = "own"  # attention pooling and a Linear; or "gallery": what the gallery reads its tokens with
    query: str = "fusion"  # "image", "text" and "sum" (of the two embeddings) are the baselines


class Composition(NamedTuple):
    """query [..., D], not normalised; attention [..., I, T]: weights over the text, mean over blocks and heads."""

    query: Any
    attention: Any


class ContextCIR(nn.Module):
    """CLIP towers, fusion blocks, attention pooling and the query projection."""

    config: ContextCIRConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        vision = c.clip.vision
        self.clip = CLIP(c.clip, self.dtype)
        if c.query == "fusion":
            self.fusion = [
                FusionBlock(c.fusion_heads, c.fusion_activation, vision.epsilon, c.fusion_self_attention, self.dtype)
                for _ in range(c.fusion_layers)
            ]
            if c.fusion_head == "own":
                self.pooling = AttentionPooling(c.fusion_heads, vision.epsilon, self.dtype)
                self.query_projection = head(c.clip.projection, ("embed", "projection"))

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Everything once: (query, gallery embedding, text embedding), each [B, D], L2-normalised."""
        image = self.encode_image(images)
        text = self.encode_text(ids, mask)
        query = self.compose(image, text, mask).query
        return normalize(query), self.embed_image(image), self.embed_text(text)

    def encode_image(self, images: UInt8[Array, "b h w 3"]):
        """Vision tower: tokens and pooled state."""
        return self.clip.encode_image(images)

    def encode_text(self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]):
        """Text tower: states and pooled state."""
        return self.clip.encode_text(ids, mask)

    def embed_image(self, image) -> Float[Array, "*b d"]:
        """Gallery embedding: plain CLIP, L2-normalised."""
        return self.clip.embed_image(image)

    def embed_text(self, text) -> Float[Array, "*b d"]:
        """Text embedding: plain CLIP, L2-normalised."""
        return self.clip.embed_text(text)

    def temperature(self) -> Float[Array, ""]:
        """CLIP's learned temperature, never below 0.01."""
        return jnp.exp(-jnp.minimum(self.clip.logit_scale, jnp.log(100.0)))

    def fuse(self, image_tokens: Float[Array, "*#b i w"], text_states: Float[Array, "*#b t v"], mask):
        """Image tokens that have read the text, and the mean attention [..., I, T] of all blocks and heads."""
        lead = jnp.broadcast_shapes(image_tokens.shape[:-2], text_states.shape[:-2])
        attention = jnp.zeros((*lead, image_tokens.shape[-2], text_states.shape[-2]))
        for block in self.fusion:
            image_tokens, weights = block(image_tokens, text_states, mask)
            attention = attention + weights.mean(-3) / len(self.fusion)
        return image_tokens, attention

    def compose(self, image, text, mask: Bool[Array, "*b t"]) -> Composition:
        """The query of `image` (tokens and pooled, leading axes broadcast against the text's) and `text`."""
        kind = self.config.query
        if kind == "fusion":
            tokens, attention = self.fuse(image.tokens, text.states, mask)
            if self.config.fusion_head == "gallery":
                return Composition(self.clip.project_image(self.clip.pool_image(tokens)), attention)
            return Composition(self.query_projection(self.pooling(tokens)), attention)
        return Composition(combine(kind, self.embed_image(image), self.embed_text(text)), None)


def combine(query: str, image: Float[Array, "*#b d"], text: Float[Array, "*#b d"]) -> Float[Array, "*b d"]:
    """The query without fusion of an image and a text embedding: "image", "text" or "sum"; not normalised."""
    image, text = jnp.broadcast_arrays(image, text)
    return {"image": image, "text": text, "sum": image + text}[query]
