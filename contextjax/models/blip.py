"""BLIP for retrieval: an image tower, a text encoder that may read it, and two scores (Li et al. 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.layers import head, normalize
from contextjax.models.multimodal import BertConfig, BertEncoder, Context
from contextjax.models.text import TextOutput
from contextjax.models.vision import VisionConfig, VisionOutput, VisionTransformer


@dataclasses.dataclass(frozen=True)
class BLIPConfig:
    """Both encoders and the width of their shared space."""

    vision: VisionConfig
    text: BertConfig
    projection: int


class BLIP(nn.Module):
    """ITC: the cosine of an image and a text embedding. ITM: two logits of a text that has read the image."""

    config: BLIPConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        self.vision = VisionTransformer(c.vision, self.dtype)
        self.text = BertEncoder(c.text, self.dtype)
        self.visual_projection = head(c.projection, ("embed", "projection"))
        self.text_projection = head(c.projection, ("embed", "projection"))
        self.matching_head = head(2, ("embed", None))

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Everything once: image and text embeddings [B, D], L2-normalised, and matching logits [B, 2]."""
        image, text = self.encode_image(images), self.encode_text(ids, mask)
        return self.embed_image(image), self.embed_text(text), self.match(image, ids, mask)

    def encode_image(self, images: UInt8[Array, "b h w 3"]) -> VisionOutput:
        """Tokens and pooled state of the vision tower."""
        return self.vision(images)

    def encode_text(self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]) -> TextOutput:
        """States and pooled state of the texts by themselves."""
        return self.text(ids, mask)

    def normalize_tokens(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b n width"]:
        """Image tokens after the final LayerNorm, as texts read them."""
        return self.vision.normalize(tokens)

    def read(
        self,
        tokens: Float[Array, "... n width"],
        ids: Int[Array, "*b t"],
        mask: Bool[Array, "*b t"],
        rows: Any = None,
    ) -> TextOutput:
        """States of texts that read image tokens; see multimodal.Context for who reads which."""
        return self.text(ids, mask, Context(tokens, rows=rows))

    def match(self, image: VisionOutput, ids: Int[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, "b 2"]:
        """ITM logits (no match, match)."""
        return self.match_states(self.read(self.normalize_tokens(image.tokens), ids, mask))

    def match_states(self, text: TextOutput) -> Float[Array, "*b 2"]:
        """ITM logits of texts that have read an image."""
        return self.matching_head(text.pooled)

    def embed_image(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Image embedding, L2-normalised."""
        return normalize(self.visual_projection(image.pooled))

    def embed_text(self, text: TextOutput) -> Float[Array, "*b d"]:
        """Text embedding, L2-normalised."""
        return normalize(self.text_projection(text.pooled))
