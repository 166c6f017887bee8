"""CLIP: an image tower and a text tower that share one embedding space."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.dual_encoder import DualEncoder, temperature_of
from contextjax.models.layers import head, logical
from contextjax.models.text import TextConfig, TextTransformer
from contextjax.models.vision import VisionConfig, VisionTransformer


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Sizes of a CLIP: both towers, and the width D of the embedding space."""

    vision: VisionConfig
    text: TextConfig
    projection: int


class CLIP(DualEncoder):
    """Contrastive language-image model (Radford et al. 2021, arXiv 2103.00020)."""

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
        """Returns image and text embeddings, each [B, D], L2-normalised."""
        return self.embed_image(self.encode_image(images)), self.embed_text(self.encode_text(ids, mask))

    def temperature(self) -> Float[Array, ""]:
        """Returns the learned temperature, at least 0.01."""
        return temperature_of(self.logit_scale)

    def pool_image(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b width"]:
        """Returns the pooled state of image tokens."""
        return self.vision.pool(tokens)

    def project_image(self, pooled: Float[Array, "*b width"]) -> Float[Array, "*b d"]:
        """Returns image embeddings of pooled states, not normalised."""
        return self.visual_projection(pooled)
