"""Muon: matrices are updated by their orthogonalised momentum, all else by AdamW (Jordan 2024, Liu et al. 2025).

The rule, its state and its numbers are those of optax.contrib.muon. That one orthogonalises under `vmap`, which on a
CPU copies and transposes every operand of small products, and takes twice the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax.contrib import MuonDimensionNumbers, MuonState

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, whose slope at zero is steep
BETA = 0.95  # of the momentum
LONG = 1.5  # ratio of a matrix's sides from which iterating on its Gram matrix takes fewer operations
FEW = 3  # matrices of an array, such as query, key and value, that are orthogonalised one by one; more at once


def muon(
    learning_rate: Callable, *, axes: Callable[[Any], Any], adam: optax.GradientTransformation, steps: int = 5,
    rms: float = 0.2, eps: float = 1e-8, weight_decay: float = 0.0, mask: Any = None,
) -> optax.GradientTransformation:  # fmt: skip
    """Makes the rule: Nesterov momentum, orthogonalised, scaled to a root mean square, decay, learning rate.

    Args:
      learning_rate: the schedule.
      axes: returns the MuonDimensionNumbers of each parameter of a tree; None where `adam` updates it.
      adam: the rule of those.
      steps: see `orthogonalize`.
      rms: root mean square of an update, before the learning rate.
      eps: added to denominators.
      weight_decay: of the matrices.
      mask: which of them decay, as optax.add_decayed_weights takes it.
    """
    own = optax.chain(
        _orthogonal_momentum(axes, steps=steps, rms=rms, eps=eps),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    is_leaf = lambda x: x is None or isinstance(x, MuonDimensionNumbers)
    labels = lambda params: jax.tree.map(lambda own: "adam" if own is None else "muon", axes(params), is_leaf=is_leaf)
    return optax.partition({"muon": own, "adam": adam}, labels)


def _orthogonal_momentum(axes: Callable, *, steps: int, rms: float, eps: float) -> optax.GradientTransformation:
    def init(params: Any) -> MuonState:
        return MuonState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params), jnp.asarray(COEFFICIENTS))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: BETA * m + (1 - BETA) * g, state.mu, updates)
        ahead, now = BETA / (1 - BETA ** (count + 1)), (1 - BETA) / (1 - BETA**count)

        def direction(m: Array, g: Array, own: MuonDimensionNumbers) -> Array:
            scaled = lambda x: rms * math.sqrt(max(x.shape)) * orthogonalize(x, steps=steps, eps=eps)
            return _by_matrix(scaled, ahead * m + now * g, own)

        return jax.tree.map(direction, mu, updates, axes(mu)), MuonState(count, mu, state.ns_coeffs)

    return optax.GradientTransformation(init, update)


def _by_matrix(function: Callable, x: Any, own: MuonDimensionNumbers) -> Array:
    """Applies a function to every matrix of an array, whose inputs and outputs are the axes that `own` says."""
    tuple_of = lambda named: tuple(axis % x.ndim for axis in ((named,) if isinstance(named, int) else named))
    inputs, outputs = tuple_of(own.reduction_axis), tuple_of(own.output_axis)
    several = tuple(axis for axis in range(x.ndim) if axis not in inputs + outputs)
    order, size = several + inputs + outputs, lambda named: math.prod(x.shape[axis] for axis in named)
    matrices = x.transpose(order).reshape(-1, size(inputs), size(outputs))
    if len(matrices) > FEW:
        done = jax.vmap(function)(matrices)
    else:
        done = jnp.stack([function(matrices[i]) for i in range(len(matrices))])
    return done.reshape([x.shape[axis] for axis in order]).transpose([order.index(axis) for axis in range(x.ndim)])


def orthogonalize(x: Float[Array, "n m"], *, steps: int = 5, eps: float = 1e-8) -> Float[Array, "n m"]:
    """Brings the singular values of a matrix near one, by Newton-Schulz iterations on its shorter side.

    Example:
      >>> values = jnp.linalg.svd(orthogonalize(jnp.diag(jnp.array([1.0, 20.0]))), compute_uv=False)
      >>> bool((jnp.abs(values - 1) < 0.4).all())
      True

    Args:
      x: a matrix.
      steps: iterations.
      eps: added to the norm.
    """
    is_tall = x.shape[0] > x.shape[1]
    gram_of = lambda x: x.T @ x if is_tall else x @ x.T
    apply = lambda polynomial, x: x @ polynomial if is_tall else polynomial @ x
    a, b, c = COEFFICIENTS
    x = x / (jnp.linalg.norm(x) + eps)
    if max(x.shape) > LONG * min(x.shape) and jax.default_backend() == "cpu":
        return apply(_product_of_polynomials(gram_of(x), steps), x)
    for _ in range(steps):
        gram = gram_of(x)
        x = a * x + apply(b * gram + c * (gram @ gram), x)
    return x


def _product_of_polynomials(gram: Float[Array, "n n"], steps: int) -> Float[Array, "n n"]:
    """Returns the product of the matrices that the iterations multiply x by, from x's Gram matrix alone.

    All are polynomials of it, so they commute: one that maps x to p x maps its Gram matrix to p gram p. Errors of the
    products grow with the iterations, hence the full precision (which a CPU has in any case).
    """
    a, b, c = COEFFICIENTS
    times = lambda x, y: jnp.matmul(x, y, precision="highest")
    product: Any = None
    for step in range(steps):
        polynomial = a * jnp.eye(len(gram), dtype=gram.dtype) + b * gram + c * times(gram, gram)
        product = polynomial if product is None else times(product, polynomial)
        if step < steps - 1:
            gram = times(times(polynomial, gram), polynomial)
    return product
