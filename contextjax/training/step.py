"""The training step: a pure function of state and batch, which leaves bad (non-finite) updates out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from contextjax.optim import stop_gradients
from contextjax.types import Health, Terms, TrainState

DECAY = 0.99  # of the exponential moving average of gradient norms, with every good step
ENOUGH = 40.0  # weight of the norms in that average, about fifty steps', from which on a spike can be seen

Differentiated = tuple[tuple[jax.Array, dict[str, jax.Array]], Any]  # ((loss, mean of each term), gradients)


class Objective(Protocol):
    """An objective as the step needs it: named (sum, count) terms, some of them weighted."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The names and weights of the terms that make the loss."""
        ...

    @property
    def is_rowwise(self) -> bool:
        """True if `represent` makes of each row of a batch what it would make of it in any other batch."""
        ...

    def represent(self, params: Any, batch: Any, rng: Any) -> dict[str, Any]:
        """Returns all that the terms compare; `rng` is a key of this step's own."""
        ...

    def terms(self, representations: dict[str, Any], batch: Any) -> Terms:
        """Returns the (sum, count) of each term by its name."""
        ...


def loss_of(objective: Objective, representations: dict[str, Any], batch: Any) -> tuple[Any, dict[str, jax.Array]]:
    """Returns the loss, and the mean of each term."""
    terms = objective.terms(representations, batch)
    means = {name: total / jnp.maximum(count, 1.0) for name, (total, count) in terms.items()}
    return sum(weight * means[name] for name, weight in objective.weights), means


def whole_batch(objective: Objective, params: Any, batch: Any, rng: jax.Array, frozen: Sequence[str]) -> Differentiated:
    """Differentiates the loss of a batch at once."""

    def loss(params):
        return loss_of(objective, objective.represent(stop_gradients(params, frozen), batch, rng), batch)

    return jax.value_and_grad(loss, has_aux=True)(params)


def train_step(
    state: TrainState, batch: Any, *, objective: Objective, optimizer: optax.GradientTransformation,
    frozen: Sequence[str] = (), differentiate: Callable[..., Differentiated] = whole_batch,
    spike_factor: float = 0.0, first_step: int = 0,
) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
    """Makes one update of the state; a bad step (see `check`) leaves parameters and moments as they were.

    Args:
      state: parameters, optimizer state, and the key of the run's randomness.
      batch: what the objective represents and compares.
      objective: gives the terms of the loss.
      optimizer: gives the updates.
      frozen: paths of parameters that are not trained.
      differentiate: gives the loss, the terms and the gradients; whole_batch, or micro_batches.in_micro_batches.
      spike_factor: see `check`.
      first_step: the objective's first step, at which the average of gradient norms is reset.

    Returns:
      the state after the step, and its metrics: loss, terms, grad_norm, bad_steps (in a row) and skipped (in all).
    """
    rng = jax.random.fold_in(state.rng, state.step)
    (loss, means), gradients = differentiate(objective, state.params, batch, rng, frozen)
    norm = optax.tree.norm(gradients)
    is_good, health = check(state.health, loss, norm, spike_factor=spike_factor, reset=state.step == first_step)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updated = (optax.apply_updates(state.params, updates), opt_state)
    keep = lambda new, old: jnp.where(is_good, new, old)
    params, opt_state = jax.tree.map(keep, updated, (state.params, state.opt_state))
    metrics = {"loss": loss, **means, "grad_norm": norm, "bad_steps": health.bad_steps, "skipped": health.skipped}
    return TrainState(state.step + 1, params, opt_state, state.rng, health), metrics


def check(
    health: Health, loss: jax.Array, norm: jax.Array, *, spike_factor: float, reset: Any
) -> tuple[jax.Array, Health]:
    """Checks a step; returns whether it is good, and the health after it.

    A step is bad if its loss or its gradient norm is not finite, or if the norm is above `spike_factor` times the
    exponential moving average of the good steps' norms before it, once there are about fifty. With a factor of 0 no
    finite norm is bad. `reset` empties the average first.
    """
    total, count = norms = jnp.where(reset, 0.0, health.norms)
    is_spike = (spike_factor > 0) & (count > ENOUGH) & (norm * count > spike_factor * total)
    is_good = jnp.isfinite(loss) & jnp.isfinite(norm) & ~is_spike
    norms = jnp.where(is_good, DECAY * norms + jnp.stack([norm, jnp.ones_like(norm)]), norms)
    bad_steps = jnp.where(is_good, 0, health.bad_steps + 1)
    return is_good, Health(bad_steps, health.skipped + ~is_good, norms)
