"""BLIP for retrieval: an image tower, a text encoder that may read image tokens, and two scores (Li et al. 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.dual_encoder import DualEncoder
from contextjax.models.layers import head
from contextjax.models.multimodal import BertConfig, BertEncoder, Context
from contextjax.models.text import TextOutput
from contextjax.models.vision import VisionConfig, VisionOutput, VisionTransformer


@dataclasses.dataclass(frozen=True)
class BLIPConfig:
    """Sizes of a BLIP: both encoders, and the width D of the embedding space."""

    vision: VisionConfig
    text: BertConfig
    projection: int


class BLIP(DualEncoder):
    """Image-text model with a contrastive and a matching score (arXiv 2201.12086, section 3).

    The contrastive score (ITC) is the cosine of an image and a text embedding. The matching score (ITM) is a pair of
    logits of a text that has read the image tokens by cross-attention.
    """

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
        """Returns image and text embeddings [B, D], L2-normalised, and matching logits [B, 2]."""
        image, text = self.encode_image(images), self.encode_text(ids, mask)
        return self.embed_image(image), self.embed_text(text), self.match(image, ids, mask)

    def normalize_tokens(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b n width"]:
        """Returns image tokens after the final LayerNorm, as texts read them."""
        return self.vision.normalize(tokens)

    def pool_normalized(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b width"]:
        """Returns the pooled state of image tokens that have been through the final LayerNorm already."""
        return self.vision.pool_normalized(tokens)

    def read(
        self, tokens: Float[Array, "... n width"], ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], rows: Any = None
    ) -> TextOutput:
        """Returns states of texts that read image tokens; `multimodal.Context` says which text reads which."""
        return self.text(ids, mask, Context(tokens, rows=rows))

    def match(self, image: VisionOutput, ids: Int[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, "b 2"]:
        """Returns matching logits (no match, match) of pictures and texts."""
        return self.match_states(self.read(self.normalize_tokens(image.tokens), ids, mask))

    def match_states(self, text: TextOutput) -> Float[Array, "*b 2"]:
        """Returns matching logits (no match, match) of texts that have read a picture."""
        return self.matching_head(text.pooled)
