"""BLIP-2's first stage for retrieval: an image tower and a Q-Former, whose query tokens are a picture's embeddings."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.dual_encoder import DualEncoder
from contextjax.models.layers import head, normalize
from contextjax.models.qformer import QFormer, QFormerConfig
from contextjax.models.vision import VisionConfig, VisionOutput, VisionTransformer


@dataclasses.dataclass(frozen=True)
class BLIP2Config:
    """Sizes of a BLIP-2: the image tower, the Q-Former, which is its text encoder too, and the embeddings' width D."""

    vision: VisionConfig
    text: QFormerConfig
    projection: int


class BLIP2(DualEncoder):
    """Image-text model with a contrastive and a matching score (arXiv 2301.12597, section 3.1).

    A picture has one embedding for each query token. The contrastive score (ITC) is the largest of their cosines with
    the text's; the matching score (ITM) is the mean over the query tokens, beside the text, of a pair of logits.
    """

    config: BLIP2Config
    dtype: Any = None

    def setup(self):
        c = self.config
        self.vision = VisionTransformer(c.vision, self.dtype)
        self.text = QFormer(c.text, self.dtype)
        self.visual_projection = head(c.projection, ("embed", "projection"))
        self.text_projection = head(c.projection, ("embed", "projection"))
        self.matching_head = head(2, ("embed", None))

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Returns image embeddings [B, L, D] and text embeddings [B, D], L2-normalised, and matching logits [B, 2]."""
        image, text = self.encode_image(images), self.encode_text(ids, mask)
        return self.embed_image_tokens(image), self.embed_text(text), self.match(image, ids, mask)

    def normalize_tokens(self, tokens: Float[Array, "*b n width"]) -> Float[Array, "*b n width"]:
        """Returns image tokens after the final LayerNorm, as the Q-Former reads them."""
        return self.vision.normalize(tokens)

    def embed_image_tokens(self, image: VisionOutput) -> Float[Array, "*b l d"]:
        """Returns L2-normalised embeddings of pictures, float32: one for each query token."""
        return normalize(self._project(image))

    def image_features(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Returns the mean projection of a picture's tokens, float32."""
        return self._project(image).mean(-2)

    def embed_image(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Returns the mean of a picture's embeddings, whose norm is at most one.

        The product of two such means is the mean cosine of their tokens, which CoVR-2 ranks by.
        """
        return self.embed_image_tokens(image).mean(-2)

    def _project(self, image: VisionOutput) -> Float[Array, "*b l d"]:
        return self.visual_projection(self.text.read_image(self.normalize_tokens(image.tokens)))

    def match(
        self, image: VisionOutput, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], rows: Any = None
    ) -> Float[Array, "*b 2"]:
        """Returns matching logits (no match, match) of pictures and texts; see QFormer.read_both for `rows`."""
        states = self.text.read_both(self.normalize_tokens(image.tokens), ids, mask, rows)
        return self.matching_head(states).mean(-2)
