"""Composed BLIP: BLIP's text encoder reads the reference picture, and the state of its first token is the query.

It is the form of CoVR's BLIP model (arXiv 2308.14746, version 1). CASE (arXiv 2303.09429), which published no code,
describes the same early fusion; whether its form is this one is not verified.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.blip import BLIP, BLIPConfig
from contextjax.models.dual_encoder import Composition, DualEncoder, temperature_of
from contextjax.models.layers import logical, normalize
from contextjax.models.vision import VisionOutput


@dataclasses.dataclass(frozen=True)
class ComposedBLIPConfig:
    """Sizes of BLIP, and the tokens at position 0 of texts that read a picture."""

    blip: BLIPConfig
    fused_token: int | None = 30523  # BLIP's [ENC]; None: nothing is replaced
    reverse_token: int | None = 30522  # of texts that lead from the target back to the reference: BLIP's [DEC]
    query: str = "composed"


class ComposedBLIP(DualEncoder):
    """BLIP whose query is a text that has read the reference picture; the gallery side is plain BLIP."""

    config: ComposedBLIPConfig
    dtype: Any = None

    def setup(self):
        self.blip = BLIP(self.config.blip, self.dtype)
        self.logit_scale = self.param("logit_scale", logical(nn.initializers.constant(math.log(1 / 0.07))), ())

    @property
    def towers(self) -> BLIP:
        """The BLIP, whose embeddings are those of the gallery."""
        return self.blip

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Returns query, gallery and text embeddings, each [B, D], L2-normalised, and BLIP's matching logits."""
        image, text = self.encode_image(images), self.encode_text(ids, mask)
        query = self.compose(image, ids, mask).query
        return normalize(query), self.embed_image(image), self.embed_text(text), self.blip.match_states(text)

    def temperature(self) -> Float[Array, ""]:
        """Returns the learned temperature, at least 0.01."""
        return temperature_of(self.logit_scale)

    def compose(
        self, image: VisionOutput, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], reverse: bool = False
    ) -> Composition:
        """Returns the query of a picture and a text; the picture's leading axes broadcast against the text's.

        `reverse`: the picture is a target, and the query leads from it back to the reference.
        """
        token = self.config.reverse_token if reverse else self.config.fused_token
        if token is not None:
            ids = jnp.where(jnp.arange(ids.shape[-1]) == 0, token, ids)
        read = self.blip.read(self.blip.normalize_tokens(image.tokens), ids, mask)
        to_patches = lambda attention: jnp.swapaxes(attention, -1, -2)
        return Composition(self.text_features(read), to_patches(read.attention), to_patches(read.last_attention))
