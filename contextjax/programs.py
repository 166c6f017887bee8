"""The programs of a system, as functions of a model, its parameters and arrays.

Each is compiled once for a model and the shapes of its inputs, whatever the parameters are. Embeddings and scores are
float32. B is a number of queries or texts, U of different pictures or sets, S of texts about sets, K of candidates in a
set, J of propositions of a text, T of tokens, I of patches, D the width of embeddings and W that of the text tower.
`rows` [B] and `sets` [S] say which picture or set each text is about, so that one that has several is encoded once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from contextjax.models.blip import BLIP
from contextjax.models.blip2 import BLIP2
from contextjax.models.context_blip import ContextBLIP
from contextjax.models.context_cir import combine
from contextjax.models.covr2 import CoVR2
from contextjax.models.dual_encoder import Composition
from contextjax.models.layers import normalize
from contextjax.spec import ENC, TOKEN_QUERIES, QueryMode, ScoreMode
from contextjax.types import Tokens

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")


class SetFeatures(NamedTuple):
    """The input of ContextBLIP's selection: float32 arrays of sets of candidates."""

    features: Any  # [S, K, W]
    base: Any  # [S, K], the base scores
    text: Any  # [S, W], the state of each whole text


def _program(method: Callable[Concatenate[Any, Inputs], Result]) -> Callable[Concatenate[Any, Any, Inputs], Result]:
    """Compiles a function of a bound model into one of (model, parameters, ...)."""

    @functools.partial(jax.jit, static_argnums=0, static_argnames="mode")
    def run(model: Any, params: Any, *inputs: Any, **options: Any) -> Any:
        return model.apply({"params": params}, *inputs, **options, method=method)

    return run


@_program
def embed_query(model: Any, pixels: Any, ids: Any, mask: Any, rows: Any = None, *, mode: QueryMode) -> jax.Array:
    """Returns the queries [B, D], L2-normalised, of pictures uint8 [U, H, W, 3] and texts [B, T].

    Without `rows` there are as many pictures as texts. Where a query has several vectors, it is their mean, as it is.
    """
    if mode in TOKEN_QUERIES:
        return model.embed_query_tokens(model.encode_image(pixels), ids, mask, rows).mean(-2)
    if mode == getattr(model.config, "query", ""):
        return normalize(_compose(model, pixels, ids, mask, rows).query)
    image = model.image_features(_encode_rows(model, pixels, rows))
    return normalize(combine(mode, image, model.text_features(model.encode_text(ids, mask))))


@_program
def image_features(model: Any, pixels: Any) -> jax.Array:
    """Returns the projections [B, D], not normalised, of pictures uint8 [B, H, W, 3]."""
    return model.image_features(model.encode_image(pixels))


@_program
def text_features(model: Any, ids: Any, mask: Any) -> jax.Array:
    """Returns the projections [B, D], not normalised, of texts [B, T]."""
    return model.text_features(model.encode_text(ids, mask))


@_program
def embed_query_tokens(model: CoVR2, pixels: Any, ids: Any, mask: Any, rows: Any = None) -> jax.Array:
    """Returns the vectors [B, L, D] of each query, L2-normalised; the arguments are those of `embed_query`."""
    return model.embed_query_tokens(model.encode_image(pixels), ids, mask, rows)


@_program
def embed_gallery_tokens(model: CoVR2 | BLIP2, pixels: Any) -> jax.Array:
    """Returns the vectors [B, L, D] of each of some pictures uint8 [B, H, W, 3], L2-normalised."""
    return model.embed_image_tokens(model.encode_image(pixels))


@_program
def embed_gallery(model: Any, pixels: Any) -> jax.Array:
    """Returns the embeddings [B, D], L2-normalised (of BLIP-2: means of such), of pictures uint8 [B, H, W, 3]."""
    return model.embed_image(model.encode_image(pixels))


@_program
def embed_text(model: Any, ids: Any, mask: Any) -> jax.Array:
    """Returns the embeddings [B, D], L2-normalised, of texts [B, T]."""
    return model.embed_text(model.encode_text(ids, mask))


@_program
def score_sets(
    model: Any, pixels: Any, ids: Any, mask: Any, short_ids: Any, short_mask: Any, ordered: Any, sets: Any,
    *, mode: ScoreMode,
) -> jax.Array:  # fmt: skip
    """Returns how well each candidate fits its text, [S, K]; see System.with_score for the modes.

    Args:
      model: a bound model.
      pixels: uint8 [U, K, H, W, 3].
      ids: the texts, [S, T].
      mask: [S, T].
      short_ids: their propositions, [S, J, T'].
      short_mask: [S, J, T'].
      ordered: bool [S], whether the candidates of a set are one after the other in time.
      sets: [S], the set that each text is about.
      mode: how candidates are scored.
    """
    reads_propositions = isinstance(model, ContextBLIP) and model.config.propositions
    if mode == "selection" or (mode == "itc" and reads_propositions):
        seen = model.represent_sets(pixels, ids, mask, sets, Tokens(short_ids, short_mask))
        valid = jnp.ones(seen.base.shape, bool)
        return seen.base if mode == "itc" else model.select(seen.features, seen.base, valid, ordered, seen.summary)
    count = pixels.shape[1]
    image, total = model.encode_image(pixels.reshape(-1, *pixels.shape[2:])), jnp.zeros((ids.shape[0], count))
    if not mode.startswith("itm"):
        text = model.embed_text(model.encode_text(ids, mask))
        if isinstance(model, BLIP2 | CoVR2):  # the nearest of a picture's vectors counts
            vectors = model.embed_image_tokens(image)
            vectors = vectors.reshape(pixels.shape[0], count, *vectors.shape[1:])[sets]
            total = total + (vectors * text[:, None, None]).sum(-1).max(-1)
        else:
            images = model.embed_image(image).reshape(pixels.shape[0], count, -1)
            total = total + (images[sets] * text[:, None]).sum(-1)
    if mode != "itc":
        candidates = (sets[:, None] * count + jnp.arange(count)).reshape(-1)
        texts = jnp.repeat(ids, count, axis=0), jnp.repeat(mask, count, axis=0)
        if isinstance(model, BLIP2):
            logits = model.match(image, *texts, candidates)
        else:
            logits = model.match_states(_read(model, image, *texts, candidates, keeps_cls=mode.endswith("cls")))
        logits = logits.astype(jnp.float32).reshape(*total.shape, 2)
        total = total + (logits[..., 1] - logits[..., 0] if mode.startswith("itm") else logits[..., 1])
    return total


@_program
def set_features(
    model: ContextBLIP, pixels: Any, ids: Any, mask: Any, short_ids: Any, short_mask: Any, sets: Any
) -> SetFeatures:
    """Returns what ContextBLIP's selection reads; the arguments are those of `score_sets`."""
    seen = model.represent_sets(pixels, ids, mask, sets, Tokens(short_ids, short_mask))
    return SetFeatures(seen.features, seen.base, seen.summary)


@_program
def attention(model: Any, pixels: Any, ids: Any, mask: Any, rows: Any, *, mode: str = "all") -> jax.Array:
    """Returns the attention [B, I, T] between the tokens of pictures uint8 [U, H, W, 3] and of texts [B, T].

    It is ConText-CIR's fusion attention, or BLIP's cross-attention with its last two axes exchanged: that of the "last"
    block, or the mean of "all".
    """
    chosen = lambda out: (out.last_attention if mode == "last" else out.attention).astype(jnp.float32)
    if hasattr(model, "compose"):
        return chosen(_compose(model, pixels, ids, mask, rows))
    return jnp.swapaxes(chosen(_read(model, model.encode_image(pixels), ids, mask, rows)), -1, -2)


def _encode_rows(model: Any, pixels: Any, rows: Any) -> Any:
    """Returns what the image tower makes of each row's picture; without `rows`, each row has its own."""
    image = model.encode_image(pixels)
    return image if rows is None else jax.tree.map(lambda x: x[rows], image)


def _compose(model: Any, pixels: Any, ids: Any, mask: Any, rows: Any) -> Composition:
    return model.compose(_encode_rows(model, pixels, rows), ids, mask)


def _read(model: Any, image: Any, ids: Any, mask: Any, rows: Any, *, keeps_cls: bool = False) -> Any:
    """Returns the states of texts that have read the pictures `rows` of `image`.

    BLIP was trained with [ENC] in place of [CLS] in what reads a picture, and its retrieval evaluation has it there.
    """
    if isinstance(model, BLIP) and model.config.text.vocabulary > ENC and not keeps_cls:
        ids = jnp.where(jnp.arange(ids.shape[-1]) == 0, ENC, ids)
    tokens = model.adapt(image) if isinstance(model, ContextBLIP) else model.normalize_tokens(image.tokens)
    return model.read(tokens, ids, mask, rows)
