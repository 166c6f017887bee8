"""ConText-CIR: a picture and a modification text become one query embedding (CVPR 2025, arXiv 2505.20764)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.clip import CLIP, CLIPConfig
from contextjax.models.combiner import Combiner, PseudoWord
from contextjax.models.dual_encoder import Composition, DualEncoder
from contextjax.models.fusion import FusionBlock
from contextjax.models.layers import AttentionPooling, head, normalize
from contextjax.models.qformer import QFormer, QFormerConfig
from contextjax.models.text import TextOutput
from contextjax.models.vision import VisionOutput

BASELINES = ("image", "text", "sum", "raw_sum")  # which every system with two towers has
QUERIES = ("fusion", "combiner", "pseudo_word", "qformer", *BASELINES)
HEADS = ("own", "gallery")


@dataclasses.dataclass(frozen=True)
class ContextCIRConfig:
    """Sizes of CLIP and of what ConText-CIR adds on the query side. The defaults are the paper's."""

    clip: CLIPConfig
    fusion_layers: int = 4
    fusion_heads: int = 8
    fusion_activation: str = "gelu"
    fusion_self_attention: bool = False
    fusion_head: str = "own"  # attention pooling and a Linear; "gallery": the gallery's own pooling and projection
    # "combiner": CLIP4Cir's; "pseudo_word": SEARLE's and LinCIR's; "qformer": CoVR-2's, on this image tower, with two
    # layers for each of fusion_layers; BASELINES: see `combine`.
    query: str = "fusion"


class ContextCIR(DualEncoder):
    """CLIP's towers, fusion blocks, attention pooling and the query projection; the gallery side is plain CLIP."""

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
        elif c.query == "combiner":
            self.combiner = Combiner()
        elif c.query == "pseudo_word":
            self.pseudo_word = PseudoWord(c.clip.text.width)
        elif c.query == "qformer":
            text, width = c.clip.text, vision.width
            sizes = text.vocabulary, text.positions, width, 2 * c.fusion_layers, c.fusion_heads, 4 * width
            self.qformer = QFormer(QFormerConfig(*sizes, activation=c.fusion_activation), self.dtype)
            self.query_projection = head(c.clip.projection, ("embed", "projection"))

    @property
    def towers(self) -> CLIP:
        """The CLIP, whose embeddings are those of the gallery."""
        return self.clip

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Returns query, gallery and text embeddings, each [B, D], L2-normalised."""
        image = self.encode_image(images)
        text = self.encode_text(ids, mask)
        query = self.compose(image, ids, mask).query
        return normalize(query), self.embed_image(image), self.embed_text(text)

    def temperature(self) -> Float[Array, ""]:
        """Returns CLIP's or SigLIP's learned temperature."""
        return self.clip.temperature()

    def pair_bias(self) -> Float[Array, ""]:
        """Returns what SigLIP's loss adds to every logit, learned."""
        return self.clip.pair_bias()

    def fuse(
        self, image_tokens: Float[Array, "*#b i w"], text_states: Float[Array, "*#b t v"], mask: Bool[Array, "*#b t"]
    ) -> tuple[Float[Array, "*b i w"], Float[Array, "*b i t"], Float[Array, "*b i t"], tuple[Array, ...]]:
        """Returns image tokens that have read the text, and attention, mean over heads.

        The attention is the mean of all blocks, that of the last, and that of each.
        """
        lead = jnp.broadcast_shapes(image_tokens.shape[:-2], text_states.shape[:-2])
        attention = last = jnp.zeros((*lead, image_tokens.shape[-2], text_states.shape[-2]))
        by_block = []
        for block in self.fusion:
            image_tokens, weights = block(image_tokens, text_states, mask)
            last = weights.mean(-3)
            attention = attention + last / len(self.fusion)
            by_block.append(last)
        return image_tokens, attention, last, tuple(by_block)

    def compose(self, image: VisionOutput, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"]) -> Composition:
        """Returns the query of a picture and a text; the picture's leading axes broadcast against the text's."""
        kind = self.config.query
        if kind == "pseudo_word":
            return Composition(self.text_features(self.read_word(ids, mask, self.image_features(image))), None)
        if kind == "qformer":  # the text is read by the Q-Former alone
            states = self.qformer.read_both(self.clip.vision.normalize(image.tokens), ids, mask)
            return Composition(normalize(self.query_projection(states)).mean(-2), None)
        text = self.encode_text(ids, mask)
        if kind == "fusion":
            tokens, *attention = self.fuse(image.tokens, text.states, mask)
            if self.config.fusion_head == "gallery":
                return Composition(self.clip.project_image(self.clip.pool_image(tokens)), *attention)
            return Composition(self.query_projection(self.pooling(tokens)), *attention)
        return Composition(self.compose_features(self.image_features(image), self.text_features(text)), None)

    def compose_features(self, image: Float[Array, "*#b d"], text: Float[Array, "*#b d"]) -> Float[Array, "*b d"]:
        """Returns the query of an image and a text feature; not normalised."""
        kind = self.config.query
        return self.combiner(*jnp.broadcast_arrays(image, text)) if kind == "combiner" else combine(kind, image, text)

    def read_word(
        self, ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], feature: Float[Array, "*#b d"]
    ) -> TextOutput:
        """Returns the states of texts in which the pseudo-word of a feature stands at every SLOT."""
        feature = jnp.broadcast_to(feature, (*ids.shape[:-1], feature.shape[-1]))
        return self.clip.text(ids, mask, self.pseudo_word(feature))


def combine(query: str, image: Float[Array, "*#b d"], text: Float[Array, "*#b d"]) -> Float[Array, "*b d"]:
    """Returns a baseline's query of an image and a text feature, which are not normalised; nor is the query.

    "image" and "text" are one of them. "sum" adds their embeddings, which have the length 1; "raw_sum" adds the
    features as they are, so that the longer one counts more (CLIP4Cir's first stage, arXiv 2308.11485; BGE-VL's CLIP).
    """
    image, text = jnp.broadcast_arrays(image, text)
    if query == "sum":
        return normalize(image) + normalize(text)
    return {"image": image, "text": text, "raw_sum": image + text}[query]
