"""CLIP: an image tower and a text tower that share one projection space."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.layers import head, logical, normalize
from contextjax.models.text import TextConfig, TextOutput, TextTransformer
from contextjax.models.vision import VisionConfig, VisionOutput, VisionTransformer


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Both towers and the width they project to."""

    vision: VisionConfig
    text: TextConfig
    projection: int


class CLIP(nn.Module):
    """Contrastive language-image model (Radford et al. 2021)."""

    config: CLIPConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        self.vision = VisionTransformer(c.vision, self.dtype)
        self.text = TextTransformer(c.text, self.dtype)
        self.visual_projection = head(c.projection, ("embed", "projection"), use_bias=False)
        self.text_projection = head(c.projection, ("embed", "projection"), use_bias=False)
        self.logit_scale = self.param("logit_scale", logical(nn.initializers.constant(math.log(1 / 0.07))), ())

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Image and text embeddings, each [B, D], L2-normalised."""
        return self.embed_image(self.encode_image(images)), self.embed_text(self.encode_text(ids, mask))

    def encode_image(self, images: UInt8[Array, "b h w 3"]) -> VisionOutput:
        """Tokens and pooled state of the vision tower."""
        return self.vision(images)

    def encode_text(self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]) -> TextOutput:
        """States and pooled state of the text tower."""
        return self.text(ids, mask)

    def pool_image(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b width"]:
        """Pooled state of vision tokens."""
        return self.vision.pool(tokens)

    def project_image(self, pooled: Float[Array, "*b width"]) -> Float[Array, "*b d"]:
        """Image embedding of a pooled vision state, not normalised."""
        return self.visual_projection(pooled)

    def embed_image(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Image embedding, L2-normalised."""
        return normalize(self.project_image(image.pooled))

    def embed_text(self, text: TextOutput) -> Float[Array, "*b d"]:
        """Text embedding, L2-normalised."""
        return normalize(self.text_projection(text.pooled))
