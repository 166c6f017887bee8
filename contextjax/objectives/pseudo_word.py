"""The objective of a pseudo-word network, of texts alone (LinCIR, arXiv 2312.01998).

The network maps a caption's embedding to that of a pseudo-word. The pseudo-word replaces the noun phrases of the
caption, and the changed caption has to have the same embedding as before. When queried, the network gets a picture's
embedding instead of a caption's; noise in training makes up for the difference. CLIP is frozen.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contextjax.models.context_cir import ContextCIR
from contextjax.models.layers import normalize
from contextjax.objectives.runner import runner
from contextjax.types import Terms, TextBatch, Tokens


@dataclasses.dataclass(frozen=True)
class PseudoWordObjective:
    """The one term of a batch of texts, "pseudo_word".

    Attributes:
      model: a ContextCIR whose query is "pseudo_word".
      weights: the weight of the term.
    """

    model: ContextCIR
    weights: tuple[tuple[str, float], ...] = (("pseudo_word", 1.0),)
    is_rowwise = True

    def represent(self, params: Any, batch: TextBatch, rng: Any = None) -> dict[str, Any]:
        """Returns `represent_words` of the batch."""
        return represent_words(self.model, params, batch.texts, batch.masked, rng)

    def terms(self, representations: dict[str, Any], batch: TextBatch) -> Terms:
        """Returns (sum, count) of the term."""
        return {"pseudo_word": word_loss(representations)}


def represent_words(model: ContextCIR, params: Any, texts: Tokens, masked: Tokens, rng: Any) -> dict[str, Any]:
    """Returns "whole", the embeddings [B, D] of texts, and "rebuilt", those of the masked texts with pseudo-words.

    Args:
      model: the module that `params` belong to.
      params: of which CLIP's get no gradient.
      texts: [B, T].
      masked: [B, T], with SLOT in place of each noun phrase.
      rng: a key of noise and dropout; None: there is neither.
    """
    params = {**params, "clip": jax.lax.stop_gradient(params["clip"])}
    run = runner(model, params, rng)
    whole = run("embed_text", run("encode_text", *texts))
    feature = whole if rng is None else whole + _noise(rng, whole)
    rebuilt = run("embed_text", run("read_word", *masked, feature))
    return {"whole": jax.lax.stop_gradient(whole), "rebuilt": rebuilt}


def _noise(rng: Any, like: Any) -> Any:
    """Draws normal noise [B, D] whose expected norm is uniform from 0 to 1 for each row."""
    size, direction = jax.random.split(jax.random.fold_in(rng, 1))
    scale = jax.random.uniform(size, (len(like), 1)) / jnp.sqrt(like.shape[-1])
    return scale * jax.random.normal(direction, like.shape)


def word_loss(representations: dict[str, Any]) -> tuple[Any, Any]:
    """Returns (sum, count) of the squared distances of the rebuilt embeddings from the texts' own."""
    distance = ((normalize(representations["rebuilt"]) - representations["whole"]) ** 2).sum(-1)
    return distance.sum(), jnp.float32(len(distance))
