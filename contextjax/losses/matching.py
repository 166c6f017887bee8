"""Does this text describe this picture (BLIP's matching), with negatives drawn from the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

FLOOR = 1e-4  # added to every probability, as BLIP does: so that a far negative is drawn now and then


def negative_weights(similarity: Float[Array, "n m"], allowed: Bool[Array, "n m"]) -> Float[Array, "n m"]:
    """Log of (softmax of a row + FLOOR), -inf where a negative is not allowed; finite at any similarity."""
    log_probability = jax.nn.log_softmax(similarity.astype(jnp.float32), axis=-1)
    weights = jnp.logaddexp(log_probability, jnp.log(FLOOR))
    return jnp.where(allowed, weights, -jnp.inf)


def draw_negatives(
    key: PRNGKeyArray | Array, similarity: Float[Array, "n m"], allowed: Bool[Array, "n m"]
) -> Int[Array, " n"]:
    """One hard negative for each row, drawn by its similarity (ContextBLIP, stage 1; un-tempered cosines).

    A row in which nothing is allowed gets its neighbour (n + 1): a false negative rather than no number.
    """
    rows, columns = similarity.shape
    drawn = jax.random.categorical(key, negative_weights(similarity, allowed), axis=-1)
    return jnp.where(allowed.any(-1), drawn, (jnp.arange(rows) + 1) % columns).astype(jnp.int32)


def matching_loss(
    logits: Float[Array, "n 2"], is_match: Bool[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy of matching logits (no match, match), as (sum, count)."""
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    picked = jnp.where(is_match, log_probability[:, 1], log_probability[:, 0])
    return -picked.sum(), jnp.float32(len(logits))


def selection_loss(
    scores: Float[Array, "s k"], target: Int[Array, " s"], valid: Bool[Array, "s k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy over the candidates of each set (ContextBLIP, stages 2a and 2b), as (sum, number of sets)."""
    log_probability = jax.nn.log_softmax(jnp.where(valid, scores, jnp.finfo(jnp.float32).min), axis=-1)
    picked = jnp.take_along_axis(log_probability, target[:, None], axis=-1)
    return -picked.sum(), jnp.float32(len(scores))


def truth_loss(
    log_probability: Float[Array, "s k"], target: Int[Array, " s"], valid: Bool[Array, "s k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy of "the text is true of this candidate", which it is of `target` alone.

    `log_probability` is that of being true. Returns (sum over valid candidates, their number).
    """
    # log(1 - p), exact where p is near one and where it is near nothing (Maechler 2012). Each branch is kept where its
    # gradient is finite; p = 1 itself is kept from being infinitely wrong.
    x = jnp.minimum(log_probability.astype(jnp.float32), -1e-30)
    near, far = jnp.log(-jnp.expm1(jnp.maximum(x, -0.693))), jnp.log1p(-jnp.exp(jnp.minimum(x, -0.693)))
    log_false = jnp.where(x > -0.693, near, far)
    is_target = jnp.arange(x.shape[1]) == target[:, None]
    return -jnp.where(valid, jnp.where(is_target, x, log_false), 0.0).sum(), valid.sum().astype(jnp.float32)


def selection_accuracy(
    scores: Float[Array, "s k"], target: Int[Array, " s"], valid: Bool[Array, "s k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How often the best of the candidates is the one described, as (sum, number of sets)."""
    best = jnp.where(valid, scores, -jnp.inf).argmax(axis=-1)
    return (best == target).sum().astype(jnp.float32), jnp.float32(len(scores))
