"""Base class of CLIP, BLIP and the models on top of them: two towers and one embedding space."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.layers import normalize
from contextjax.models.text import TextOutput
from contextjax.models.vision import VisionOutput


class Composition(NamedTuple):
    """A composed query: query [..., D], not normalised, and attention [..., I, T] over the text, mean over heads."""

    query: Any
    attention: Any  # mean over the blocks
    last_attention: Any = None  # of the last block
    by_block: Any = ()  # of each block


class DualEncoder(nn.Module):
    """The methods of a model with an image tower, a text tower and a projection of each into one embedding space.

    CLIP and BLIP set up `vision`, `text`, `visual_projection` and `text_projection`; a model on top of one of them
    says by `towers` which submodule that is.
    """

    @property
    def towers(self) -> Any:
        """The module that holds the towers and the projections."""
        return self

    def encode_image(self, images: UInt8[Array, "b h w 3"]) -> VisionOutput:
        """Returns tokens, pooled state and taps of pictures."""
        return self.towers.vision(images)

    def encode_text(self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]) -> TextOutput:
        """Returns states and pooled state of texts by themselves."""
        return self.towers.text(ids, mask)

    def project_image(self, pooled: Float[Array, "*b width"]) -> Float[Array, "*b d"]:
        """Returns the projections of pooled states of pictures, float32, not normalised."""
        return self.towers.visual_projection(pooled)

    def image_features(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Returns the projections of pictures, float32, not normalised."""
        return self.towers.project_image(image.pooled)

    def text_features(self, text: TextOutput) -> Float[Array, "*b d"]:
        """Returns the projections of texts, float32, not normalised."""
        return self.towers.text_projection(text.pooled)

    def embed_image(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Returns L2-normalised image embeddings, float32."""
        return normalize(self.image_features(image))

    def embed_text(self, text: TextOutput) -> Float[Array, "*b d"]:
        """Returns L2-normalised text embeddings, float32."""
        return normalize(self.text_features(text))


def temperature_of(logit_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the temperature exp(-logit_scale), at least 0.01 (CLIP, Radford et al. 2021, section 2.3)."""
    return jnp.exp(-jnp.minimum(logit_scale, jnp.log(100.0)))
