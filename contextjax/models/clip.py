"""CLIP and SigLIP: an image tower and a text tower that share one embedding space."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.dual_encoder import DualEncoder, temperature_of
from contextjax.models.layers import head, logical
from contextjax.models.text import TextConfig, TextTransformer
from contextjax.models.vision import VisionConfig, VisionTransformer
from contextjax.types import UserError

SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0  # at the start of training, section 3.2 of its paper


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Sizes of a CLIP or a SigLIP: both towers, and the width D of the embedding space."""

    vision: VisionConfig
    text: TextConfig
    projection: int

    @property
    def is_siglip(self) -> bool:
        """True for SigLIP's towers (`check_towers` says what belongs together)."""
        return self.vision.pooling == "attention"


def check_towers(config: CLIPConfig, where: str) -> None:
    """Raises a UserError where the towers are in part CLIP's and in part SigLIP's; `where` begins their fields' names.

    SigLIP's text tower has a `pad_token`, and pictures are not projected.
    """
    pad, vocabulary, width = config.text.pad_token, config.text.vocabulary, config.vision.width
    if config.is_siglip != (pad is not None):
        raise UserError(
            f"{where}vision.pooling is '{config.vision.pooling}' and {where}text.pad_token is {pad}; expected the "
            "pooling 'attention' with an id, as SigLIP has them, or another with None."
        )
    if pad is not None and pad >= vocabulary:
        raise UserError(f"{where}text.pad_token is {pad}, but the vocabulary has {vocabulary} ids; give one of them.")
    if config.is_siglip and config.projection != width:
        raise UserError(
            f"{where}projection is {config.projection}, but the image tower {width} wide; SigLIP embeds pictures as "
            "they are pooled: give the same number."
        )


class CLIP(DualEncoder):
    """Contrastive language-image model (Radford et al. 2021, arXiv 2103.00020), or SigLIP (arXiv 2303.15343)."""

    config: CLIPConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        self.vision = VisionTransformer(c.vision, self.dtype)
        self.text = TextTransformer(c.text, self.dtype)
        if not c.is_siglip:
            self.visual_projection = head(c.projection, ("embed", "projection"), use_bias=False)
        self.text_projection = head(c.projection, ("embed", "projection"), use_bias=c.is_siglip)
        scale = math.log(SIGLIP_SCALE if c.is_siglip else 1 / 0.07)
        self.logit_scale = self.param("logit_scale", logical(nn.initializers.constant(scale)), ())
        if c.is_siglip:
            self.logit_bias = self.param("logit_bias", logical(nn.initializers.constant(SIGLIP_BIAS)), ())

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Returns image and text embeddings, each [B, D], L2-normalised."""
        return self.embed_image(self.encode_image(images)), self.embed_text(self.encode_text(ids, mask))

    def temperature(self) -> Float[Array, ""]:
        """Returns the learned temperature: CLIP's is at least 0.01, SigLIP's has no bound."""
        return jnp.exp(-self.logit_scale) if self.config.is_siglip else temperature_of(self.logit_scale)

    def pair_bias(self) -> Float[Array, ""]:
        """Returns what SigLIP's loss adds to every logit, learned."""
        return self.logit_bias

    def pool_image(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b width"]:
        """Returns the pooled state of image tokens."""
        return self.vision.pool(tokens)

    def project_image(self, pooled: Float[Array, "*b width"]) -> Float[Array, "*b d"]:
        """Returns image embeddings of pooled states, not normalised; SigLIP's are these states."""
        return pooled.astype(jnp.float32) if self.config.is_siglip else self.visual_projection(pooled)
