"""ContextBLIP: one linguistically complex text picks one of K nearly identical pictures (arXiv 2405.19226)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from contextjax.models.adapter import ConvolutionalAdapter, MultiScaleAdapter
from contextjax.models.blip import BLIP, BLIPConfig
from contextjax.models.dual_encoder import DualEncoder, temperature_of
from contextjax.models.inter_context import InterContextEncoder
from contextjax.models.layers import dense, head, logical, normalize
from contextjax.models.masking import ReconstructionDecoder
from contextjax.models.text import TextOutput
from contextjax.models.token_pooling import TokenPooling
from contextjax.models.vision import VisionOutput
from contextjax.types import Tokens

ADAPTERS = ("taps", "convolutions", "none")
MASKINGS = ("pixels", "attended", "none")
SELECTIONS = ("head", "itc", "both", "adapted", "none")

COSINES = ("itc", "both", "adapted")  # the selections that have a base score


@dataclasses.dataclass(frozen=True)
class ContextBLIPConfig:
    """Sizes of BLIP and of what ContextBLIP adds. The defaults are the paper's; blip.vision.taps are the adapter's.

    Parameters exist only for what is switched on: a stage-1 model has masking and no head, a stage-2 model a head and
    no masking. `models.adapter` says what the summary form is.
    """

    blip: BLIPConfig
    adapter: str = "taps"  # "convolutions" over the patch grid (the summary form), or "none"
    adapter_reduction: int = 2
    adapter_zero_init: bool = False
    masking: str = "pixels"  # "attended": which patches the text reads (the summary form), or "none"
    mask_rate: float = 0.25
    decoder_layers: int = 4
    decoder_heads: int = 8
    # A Linear of the fused state; "itc": the base score; "both": their sum; "adapted": the cosine of the text's and the
    # adapted picture's embedding, which no text has read (the summary form); "none".
    selection: str = "head"
    propositions: bool = False  # the base score reads a text sentence by sentence, see base_score (not in the paper)
    pooling_heads: int = 0  # the base score pools image tokens by the text (token_pooling.py); 0: BLIP's own cosine
    context_layers: int = 2  # blocks of the inter-context encoder; 0: without it
    context_heads: int = 8
    context_positions: int = 10
    context_dropout: float = 0.1
    context_relative: bool = False
    context_text: bool = False
    fused_token: int | None = 30523  # the token at position 0 of texts that read a picture: BLIP's [ENC]


class Sets(NamedTuple):
    """The states of S texts, each about one of U sets of K candidates."""

    features: Any  # float32 [S, K, W], see ContextBLIP.feature; "adapted": embeddings [S, K, D] of adapted pictures
    base: Any  # float32 [S, K], see ContextBLIP.base_score
    image: Any  # [U, K, ...], see ContextBLIP.base_of_image
    text: Any  # [S, J, ...], see ContextBLIP.base_of_text; J = 1 where texts are read as a whole
    real: Any  # bool [S, J]: False where a text has fewer than J propositions
    summary: Any  # float32 [S, W]: pooled state of each whole text by itself; "adapted": its embedding [S, D]


class ContextBLIP(DualEncoder):
    """BLIP, multi-scale adapter, reconstruction decoder, selection head and inter-context encoder (arXiv 2405.19226).

    Stage 1 trains adapter and decoder on captions, stage 2a the head on candidate sets, stage 2b the inter-context
    encoder on features of a frozen 2a (`objectives.context_blip`).
    """

    config: ContextBLIPConfig
    dtype: Any = None

    def setup(self):
        c = self.config
        vision = c.blip.vision
        self.blip = BLIP(c.blip, self.dtype)
        grid = vision.image_size // vision.patch_size
        options = (c.adapter_reduction, c.adapter_zero_init, self.dtype)
        if c.adapter == "taps":
            self.adapter = MultiScaleAdapter(*options)
        elif c.adapter == "convolutions":
            self.adapter = ConvolutionalAdapter(grid, *options)
        if c.masking == "pixels":
            pixels = 3 * vision.patch_size**2
            self.decoder = ReconstructionDecoder(
                c.decoder_layers, c.decoder_heads, 4 * vision.width, pixels, self.dtype
            )
        elif c.masking == "attended":
            self.attended = dense(1, ("embed", None), dtype=self.dtype)
        if c.selection in ("head", "both"):
            # Added to the cosine, the head starts at zero: a random score would outweigh the pretrained towers'.
            init = nn.initializers.zeros if c.selection == "both" else None
            self.head = head(1, ("embed", None), init=init)
        if c.selection in COSINES:
            self.logit_scale = self.param("logit_scale", logical(nn.initializers.constant(math.log(1 / 0.07))), ())
            if c.pooling_heads:
                self.pooling = TokenPooling(c.blip.projection, c.pooling_heads, self.dtype)
            if c.propositions:  # at the start, sentences count as true
                self.truth_bias = self.param("truth_bias", logical(nn.initializers.constant(2.0)), ())
        if c.context_layers:
            self.context = InterContextEncoder(
                c.context_layers, c.context_heads, c.context_positions, c.context_dropout, c.context_relative,
                c.context_text, self.dtype,
            )  # fmt: skip

    @property
    def towers(self) -> BLIP:
        """The BLIP, whose embeddings the adapter leaves unchanged."""
        return self.blip

    def __call__(self, images: UInt8[Array, "b h w 3"], ids: Int[Array, "b t"], mask: Bool[Array, "b t"]):
        """Returns image and text embeddings [B, D], matching logits [B, 2] and, with a selection, scores [B, 1].

        Every row is a set of one candidate. This is what initialises the parameters: it calls every submodule.
        """
        image, text = self.encode_image(images), self.encode_text(ids, mask)
        tokens = self.adapt(image)
        fused = self.read(tokens, ids, mask)
        if self.config.masking == "pixels":
            masked, visible = jnp.split(
                jnp.broadcast_to(jnp.arange(tokens.shape[1] - 1), tokens[:, 1:, 0].shape), [1], 1
            )
            self.decoder(tokens[:, :-1], masked, visible, fused.states, mask)
        elif self.config.masking == "attended":
            self.attended(tokens)
        outputs = self.embed_image(image), self.embed_text(text), self.match_states(fused)
        if self.config.selection == "none":
            return outputs
        one = jnp.ones((len(images), 1), bool)
        compared, short = self.base_of_image(image), self.base_of_text(text)
        base = self.base_score(compared[:, None], short[:, None], one)
        is_adapted = self.config.selection == "adapted"
        features, summary = (compared, short) if is_adapted else (self.feature(fused), text.pooled)
        score = self.select(features[:, None], base, one, one[:, 0], summary)
        return *outputs, score

    def patchify(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b patches pixels"]:
        """Returns normalised pixels of each patch, see VisionTransformer.patchify."""
        return self.blip.vision.patchify(images)

    def encode_visible(
        self, patches: Float[Array, "b patches pixels"], visible: Int[Array, "b v"]
    ) -> Float[Array, "b n w"]:
        """Returns adapted tokens of some patches only: CLS first, then the patches in the order of `visible`."""
        return self.adapt(self.blip.vision.encode(patches, visible), visible)

    def base_of_image(self, image: VisionOutput) -> Float[Array, "*b d"] | Float[Array, "*b n 2 d"]:
        """Returns the pictures' side of the base score: embeddings, plain or adapted, or keys and values of tokens."""
        if self._pools_tokens:
            return self.pooling.read_image(self.blip.normalize_tokens(image.tokens))
        if self.config.selection == "adapted":
            return normalize(self.blip.visual_projection(self.blip.pool_normalized(self.adapt(image))))
        return self.embed_image(image)

    def base_of_text(self, text: TextOutput) -> Float[Array, "*b d"] | Float[Array, "*b 2 d"]:
        """Returns the side of the base score of texts or propositions: embeddings, or queries."""
        return self.pooling.read_text(text.pooled) if self._pools_tokens else self.embed_text(text)

    @property
    def _pools_tokens(self) -> bool:
        return self.config.pooling_heads > 0 and self.config.selection in COSINES

    def adapt(self, image: VisionOutput, visible: Int[Array, "b v"] | None = None) -> Float[Array, "b n w"]:
        """Returns image tokens as texts read them: after the final LayerNorm and the adapter."""
        if self.config.adapter == "none":
            return self.blip.normalize_tokens(image.tokens)
        return self.adapter([self.blip.normalize_tokens(tap) for tap in image.taps], visible)

    def read(
        self, tokens: Float[Array, "... n w"], ids: Int[Array, "*b t"], mask: Bool[Array, "*b t"], rows: Any = None
    ) -> TextOutput:
        """Returns states of texts that read image tokens; `multimodal.Context` says which text reads which."""
        if self.config.fused_token is not None:
            ids = ids.at[..., 0].set(self.config.fused_token)
        return self.blip.read(tokens, ids, mask, rows)

    def match_states(self, fused: TextOutput) -> Float[Array, "*b 2"]:
        """Returns BLIP's matching logits (no match, match) of texts that have read a picture."""
        return self.blip.match_states(fused)

    def feature(self, fused: TextOutput) -> Float[Array, "*b w"]:
        """Returns f, the L2-normalised state of the first token of texts that have read a picture, float32."""
        pooled = fused.pooled.astype(jnp.float32)
        return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)

    def represent_sets(
        self,
        images: UInt8[Array, "u k h w 3"],
        ids: Int[Array, "s t"],
        mask: Bool[Array, "s t"],
        sets: Int[Array, " s"] | None = None,
        propositions: Tokens | None = None,
    ) -> Sets:
        """Encodes the candidates as one batch, and each text with every candidate of its set.

        Args:
          images: the candidates of U sets.
          ids: token ids of S texts.
          mask: True for real tokens.
          sets: the set that each text is about; None: the first S / U texts are about the first set, and so on.
          propositions: tokens [S, J, T] that the base score reads instead of the whole texts.
        """
        image = self.encode_image(images.reshape(-1, *images.shape[2:]))
        embedded = self.base_of_image(image)
        embedded = embedded.reshape(*images.shape[:2], *embedded.shape[1:])
        short = Tokens(ids[:, None], mask[:, None]) if propositions is None else propositions
        text, real = self.base_of_text(self.encode_text(*short)), short.mask.any(-1)
        own = _of_each(embedded, len(ids)) if sets is None else embedded[sets]
        base = self.base_score(own, text, real)
        if self.config.selection == "adapted":
            return Sets(own, base, embedded, text, real, self.embed_text(self.encode_text(ids, mask)))
        features = self._read_sets(self.adapt(image), ids, mask, images.shape[0], sets)
        summary = self.encode_text(ids, mask).pooled.astype(jnp.float32)
        return Sets(features, base, embedded, text, real, summary)

    def _read_sets(
        self, tokens: Float[Array, "c n w"], ids: Int[Array, "s t"], mask: Bool[Array, "s t"], count: int, sets: Any
    ) -> Float[Array, "s k width"]:
        """Returns f of each text and every candidate of its set; `tokens` are those of `count` sets in a row."""
        candidates = tokens.shape[0] // count
        if sets is not None:
            repeat = lambda x: jnp.repeat(x, candidates, axis=0)
            rows = (sets[:, None] * candidates + jnp.arange(candidates)).reshape(-1)
            fused = self.read(tokens, repeat(ids), repeat(mask), rows)
            return self.feature(fused).reshape(ids.shape[0], candidates, -1)
        # [U, K, texts of a set, ...]: with this layout, each of several devices reads the candidates of its own sets.
        tokens = tokens.reshape(count, candidates, 1, *tokens.shape[1:])
        shape = (count, candidates, len(ids) // count, ids.shape[-1])
        spread = lambda x: jnp.broadcast_to(x.reshape(shape[0], 1, *shape[2:]), shape)
        features = self.feature(self.read(tokens, spread(ids), spread(mask)))
        return jnp.swapaxes(features, 1, 2).reshape(len(ids), candidates, -1)

    def base_score(
        self, image: Float[Array, "*#s k ..."], text: Float[Array, "s j ..."], real: Bool[Array, "s j"]
    ) -> Float[Array, "s k"]:
        """Returns the score, of each text and K pictures, to which the head's score is added.

        The score is the cosine over the temperature (J = 1); with config.propositions, the log-probability that all J
        sentences of a text are true, sum over j of log sigmoid(cosine_j / temperature + bias), in which true sentences
        do not make up for a false one (not in the paper). The cosine is that of the embeddings, or of a text and what
        it reads of a picture's tokens (config.pooling_heads). With config.selection "head", the score is zero.

        Args:
          image: `base_of_image` of each set's candidates, or of K pictures that are the same for all texts.
          text: `base_of_text` of each text's propositions.
          real: False where a text has fewer than J propositions.
        """
        if self._pools_tokens:
            cosine = self.pooling.cosine(image, text)
        else:
            cosine = jnp.einsum("...kd,...jd->...jk", image, text)
        if self.config.selection not in COSINES:
            return jnp.zeros_like(cosine[:, 0])
        if not self.config.propositions:
            return cosine[:, 0] / self.temperature()
        truth = jax.nn.log_sigmoid(cosine / self.temperature() + self.truth_bias)
        return jnp.where(real[..., None], truth, 0.0).sum(1)

    def temperature(self) -> Float[Array, ""]:
        """Returns the learned temperature of the base score, at least 0.01."""
        return temperature_of(self.logit_scale)

    def select(
        self,
        features: Float[Array, "s k w"],
        base: Float[Array, "s k"],
        valid: Bool[Array, "s k"],
        ordered: Bool[Array, " s"],
        text: Float[Array, "s w"],
    ) -> Float[Array, "s k"]:
        """Returns scores of a set's candidates: base + w (o + f) + b, with o from the inter-context encoder, if any.

        In the summary form, "adapted", the score is the cosine of the text and f + o, both of norm one, over the
        temperature.

        Args:
          features: f of each candidate.
          base: see `base_score`.
          valid: False where a set has fewer than K candidates.
          ordered: True where the candidates follow each other in time.
          text: pooled state of each text by itself, which the inter-context encoder may read.
        """
        c = self.config
        if c.selection == "itc" or (c.selection == "adapted" and not c.context_layers):
            return base
        read = self.context(features, valid, ordered, text) if c.context_layers else jnp.zeros_like(features)
        if c.selection == "adapted":  # the encoder's LayerNorm leaves vectors of norm sqrt(D): brought to a feature's
            return jnp.einsum("skd,sd->sk", normalize(features + normalize(read)), text) / self.temperature()
        return base + self.head(features + read)[..., 0]


def _of_each(x: Float[Array, "u k ..."], count: int) -> Float[Array, "s k ..."]:
    """Repeats what belongs to U sets for each of `count` texts, of which count / U in a row are about each set."""
    spread = jnp.broadcast_to(x[:, None], (len(x), count // len(x), *x.shape[1:]))
    return spread.reshape(count, *x.shape[1:])
