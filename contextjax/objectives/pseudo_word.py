"""The objective of a pseudo-word network, of texts alone (LinCIR, arXiv 2312.01998).

The network makes a word of a caption's own embedding; put in place of the caption's noun phrases, the word has to give
the caption's embedding back. A picture's embedding takes the caption's place when a gallery is queried, and noise on
the embedding is to bridge what lies between the two. CLIP is not trained by it.
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
    """Returns the embeddings [B, D] of texts, and those "rebuilt" of masked texts that hold the texts' words.

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
    """Draws normal noise whose size is uniform from 0 to 1 for each row, in all the length that the embedding has."""
    size, direction = jax.random.split(jax.random.fold_in(rng, 1))
    scale = jax.random.uniform(size, (len(like), 1)) / jnp.sqrt(like.shape[-1])
    return scale * jax.random.normal(direction, like.shape)


def word_loss(representations: dict[str, Any]) -> tuple[Any, Any]:
    """Returns (sum, count) of the squared distances of the rebuilt embeddings from the texts' own."""
    distance = ((normalize(representations["rebuilt"]) - representations["whole"]) ** 2).sum(-1)
    return distance.sum(), jnp.float32(len(distance))
