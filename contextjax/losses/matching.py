"""Losses over picture-text pairs and candidate sets: BLIP's matching with hard negatives, ContextBLIP's selection."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

FLOOR = 1e-4  # added to every probability, as in BLIP, so that an unlike negative is drawn now and then too


def negative_weights(similarity: Float[Array, "n m"], allowed: Bool[Array, "n m"]) -> Float[Array, "n m"]:
    """Returns log(softmax of a row + FLOOR), and -inf where a negative is not allowed.

    Example:
      >>> negative_weights(jnp.zeros((1, 2)), jnp.array([[True, False]])).round(2).tolist()
      [[-0.6899999976158142, -inf]]

    Args:
      similarity: of row i and candidate j; weights are finite however large it is.
      allowed: True where candidate j may be a negative of row i.
    """
    log_probability = jax.nn.log_softmax(similarity.astype(jnp.float32), axis=-1)
    weights = jnp.logaddexp(log_probability, jnp.log(FLOOR))
    return jnp.where(allowed, weights, -jnp.inf)


def draw_negatives(
    key: PRNGKeyArray | Array, similarity: Float[Array, "n m"], allowed: Bool[Array, "n m"]
) -> Int[Array, " n"]:
    """Draws a hard negative for each row with probability softmax(similarity) + FLOOR (ContextBLIP, stage 1).

    Example:
      >>> others = ~jnp.eye(2, dtype=bool)
      >>> draw_negatives(jax.random.key(0), jnp.zeros((2, 2)), others).tolist()
      [1, 0]

    Args:
      key: of the draw.
      similarity: cosines of row i and candidate j, not divided by a temperature.
      allowed: True where candidate j may be a negative of row i. A row where nothing is allowed gets the candidate
        after its own: a false negative costs less than a loss that is not a number.

    Returns:
      Index of the negative of each row.
    """
    rows, columns = similarity.shape
    drawn = jax.random.categorical(key, negative_weights(similarity, allowed), axis=-1)
    return jnp.where(allowed.any(-1), drawn, (jnp.arange(rows) + 1) % columns).astype(jnp.int32)


def matching_loss(
    logits: Float[Array, "n 2"], is_match: Bool[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the cross-entropy of matching logits (BLIP, arXiv 2201.12086, section 3.2).

    Example:
      >>> total, count = matching_loss(jnp.array([[-9.0, 9.0]]), jnp.array([True]))
      >>> bool(total / count < 1e-3)
      True

    Args:
      logits: (no match, match) of each pair.
      is_match: True where text and picture belong together.

    Returns:
      (sum over pairs, number of pairs).
    """
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    picked = jnp.where(is_match, log_probability[:, 1], log_probability[:, 0])
    return -picked.sum(), jnp.float32(len(logits))


def selection_loss(
    scores: Float[Array, "s k"], target: Int[Array, " s"], valid: Bool[Array, "s k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the cross-entropy over the candidates of each set (ContextBLIP, arXiv 2405.19226, stages 2a and 2b).

    Example:
      >>> scores, every = jnp.array([[0.0, 9.0, 0.0]]), jnp.ones((1, 3), bool)
      >>> total, count = selection_loss(scores, jnp.array([1]), every)
      >>> bool(total / count < 1e-3)
      True

    Args:
      scores: of each candidate; higher is better.
      target: index of the candidate that is described.
      valid: False where a set has fewer than K candidates.

    Returns:
      (sum over sets, number of sets).
    """
    log_probability = jax.nn.log_softmax(jnp.where(valid, scores, jnp.finfo(jnp.float32).min), axis=-1)
    picked = jnp.take_along_axis(log_probability, target[:, None], axis=-1)
    return -picked.sum(), jnp.float32(len(scores))


def truth_loss(
    log_probability: Float[Array, "s k"], target: Int[Array, " s"], valid: Bool[Array, "s k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the binary cross-entropy of "the text is true of this candidate", which it is of the target alone.

    Each candidate counts by itself, so that scores of different sets can be compared (not in the paper).

    Example:
      >>> log_probability, every = jnp.log(jnp.array([[0.5, 0.5]])), jnp.ones((1, 2), bool)
      >>> total, count = truth_loss(log_probability, jnp.array([0]), every)
      >>> round(float(total / count), 3)
      0.693

    Args:
      log_probability: of the text being true of each candidate.
      target: index of the candidate that is described.
      valid: False where a set has fewer than K candidates.

    Returns:
      (sum over valid candidates, number of valid candidates).
    """
    # log(1 - p) is exact for p near one by `near` and for p near zero by `far` (Maechler 2012). Both branches are
    # clipped to where their gradients are finite, and p to less than one, where the loss would be infinite.
    x = jnp.minimum(log_probability.astype(jnp.float32), -1e-30)
    near, far = jnp.log(-jnp.expm1(jnp.maximum(x, -0.693))), jnp.log1p(-jnp.exp(jnp.minimum(x, -0.693)))
    log_false = jnp.where(x > -0.693, near, far)
    is_target = jnp.arange(x.shape[1]) == target[:, None]
    return -jnp.where(valid, jnp.where(is_target, x, log_false), 0.0).sum(), valid.sum().astype(jnp.float32)


def selection_accuracy(
    scores: Float[Array, "s k"], target: Int[Array, " s"], valid: Bool[Array, "s k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Counts sets whose best-scored candidate is the one described.

    Example:
      >>> selection_accuracy(jnp.array([[0.0, 9.0]]), jnp.array([1]), jnp.ones((1, 2), bool))
      (Array(1., dtype=float32), Array(1., dtype=float32))

    Returns:
      (number of sets that are right, number of sets).
    """
    best = jnp.where(valid, scores, -jnp.inf).argmax(axis=-1)
    return (best == target).sum().astype(jnp.float32), jnp.float32(len(scores))
