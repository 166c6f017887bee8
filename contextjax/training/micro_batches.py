"""Gradients of a large batch in the memory of a small one: gradient caching (arXiv 2101.06983), exact.

First every micro-batch is represented, without gradients; then the terms are computed of all representations at once,
with the gradient of the loss by each; then every micro-batch is represented again, and its gradient pulled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from contextjax.optim import stop_gradients
from contextjax.training.step import Differentiated, Objective, loss_of


def in_micro_batches(
    objective: Objective, params: Any, batch: Any, rng: jax.Array, frozen: Sequence[str], *, parts: int = 1
) -> Differentiated:
    """Differentiates the loss of all micro-batches as one, as step.whole_batch does, row by row.

    Args:
      objective: its representations have the rows of the batch along their first axis, or no axis at all (a
        temperature) and are then the same for all micro-batches.
      params: that `represent` takes.
      batch: arrays [k, b, ...] of k micro-batches.
      rng: a key of this step; each micro-batch has one of its own.
      frozen: paths of parameters that are not trained.
      parts: the number of parts into which devices cut the axis of b; each device keeps its own rows.
    """
    keys = jax.random.split(rng, len(jax.tree.leaves(batch)[0]))
    represent = lambda params, rows, key: objective.represent(stop_gradients(params, frozen), rows, key)

    def loss(representations):
        return loss_of(objective, merge(representations, parts), merge(batch, parts))

    def add(gradients, micro_batch):
        rows, key, cotangents = micro_batch
        _, pull = jax.vjp(lambda params: represent(params, rows, key), params)
        return jax.tree.map(jnp.add, gradients, pull(cotangents)[0]), None

    representations = jax.lax.map(lambda x: represent(params, *x), (batch, keys))
    outcome, cotangents = jax.value_and_grad(loss, has_aux=True)(representations)
    gradients, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (batch, keys, cotangents))
    return outcome, gradients


def merge(tree: Any, parts: int) -> Any:
    """Returns arrays [k, b, ...] as [k * b, ...], rows of one device next to each other, and numbers [k] as means."""

    def merged(x):
        if x.ndim == 1:
            return x.mean()
        count, rows = x.shape[:2]
        cuts = parts if rows % parts == 0 else 1
        return x.reshape(count, cuts, -1, *x.shape[2:]).swapaxes(0, 1).reshape(count * rows, *x.shape[2:])

    return jax.tree.map(merged, tree)
