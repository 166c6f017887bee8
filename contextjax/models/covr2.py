"""CoVR-2: BLIP-2's Q-Former reads the reference picture and the text, and its query tokens' states are the query.

Ventura et al., TPAMI 2024 (arXiv 2308.14746). A frozen BLIP-2 embeds the targets. A copy of its Q-Former and of its
text projection is trained for the queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.blip2 import BLIP2, BLIP2Config
from contextjax.models.dual_encoder import Composition, DualEncoder
from contextjax.models.layers import head, normalize
from contextjax.models.qformer import QFormer
from contextjax.models.vision import VisionOutput

# Parameters that begin as a copy of those of BLIP-2.
COPIES: Mapping[str, str] = {"qformer": "text", "query_projection": "text_projection"}


@dataclasses.dataclass(frozen=True)
class CoVR2Config:
    """Sizes of BLIP-2, and how query and gallery are compared."""

    blip2: BLIP2Config
    query: str = "token_mean"  # the mean cosine of all pairs of tokens; "token_max": the largest


class CoVR2(DualEncoder):
    """A frozen BLIP-2, whose embeddings are those of the gallery, and the Q-Former of the queries."""

    config: CoVR2Config
    dtype: Any = None

    def setup(self):
        c = self.config.blip2
        self.blip2 = BLIP2(c, self.dtype)
        self.qformer = QFormer(c.text, self.dtype)
        self.query_projection = head(c.projection, ("embed", "projection"))

    @property
    def towers(self) -> BLIP2:
        """The BLIP-2, whose embeddings are those of the gallery."""
        return self.blip2

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Returns query and gallery embeddings [B, L, D], and text embeddings [B, D], L2-normalised; matching logits.

        This is what initialises the parameters: it calls every submodule.
        """
        image, text = self.encode_image(images), self.encode_text(ids, mask)
        gallery, query = self.embed_image_tokens(image), self.embed_query_tokens(image, ids, mask)
        return query, gallery, self.embed_text(text), self.blip2.match(image, ids, mask)

    def image_features(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Returns the mean projection of a picture's tokens, float32."""
        return self.blip2.image_features(image)

    def embed_image(self, image: VisionOutput) -> Float[Array, "*b d"]:
        """Returns the mean of a picture's embeddings, whose norm is at most one."""
        return self.blip2.embed_image(image)

    def embed_image_tokens(self, image: VisionOutput) -> Float[Array, "*b l d"]:
        """Returns L2-normalised embeddings of pictures, float32: one for each query token."""
        return self.blip2.embed_image_tokens(image)

    def embed_query_tokens(
        self, image: VisionOutput, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], rows: Any = None
    ) -> Float[Array, "*b l d"]:
        """Returns L2-normalised embeddings of queries, float32: one for each query token.

        `rows`: the picture of each text; None: the leading axes of pictures and texts broadcast.
        """
        states = self.qformer.read_both(self.blip2.normalize_tokens(image.tokens), ids, mask, rows)
        return normalize(self.query_projection(states))

    def compose(self, image: VisionOutput, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]) -> Composition:
        """Returns the query of a picture and a text: the mean of its embeddings, whose norm is at most one."""
        return Composition(self.embed_query_tokens(image, ids, mask).mean(-2), None)
