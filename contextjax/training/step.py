"""The training step: a pure function of state and batch, which leaves out what is sick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from contextjax.optim import stop_gradients
from contextjax.types import Health, Terms, TrainState

FADING = 0.99  # of what is known of gradient norms, with every good step
KNOWN = 40.0  # faded count of norms, that of about fifty steps, from which on a spike can be told

Differentiated = tuple[tuple[jax.Array, dict[str, jax.Array]], Any]  # ((loss, mean of each term), gradients)


class Objective(Protocol):
    """What the step needs of an objective: named (sum, count) terms, some of them weighted."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """(name, weight) of the terms that make the loss."""
        ...

    @property
    def is_rowwise(self) -> bool:
        """Whether `represent` makes of each row of a batch what it would make of it in any other batch."""
        ...

    def represent(self, params: Any, batch: Any, rng: Any) -> dict[str, Any]:
        """Everything the terms compare; `rng` is a key of this step's own."""
        ...

    def terms(self, representations: dict[str, Any], batch: Any) -> Terms:
        """name -> (sum, count)."""
        ...


def loss_of(objective: Objective, representations: dict[str, Any], batch: Any) -> tuple[Any, dict[str, jax.Array]]:
    """(loss, mean of each term)."""
    terms = objective.terms(representations, batch)
    means = {name: total / jnp.maximum(count, 1.0) for name, (total, count) in terms.items()}
    return sum(weight * means[name] for name, weight in objective.weights), means


def whole_batch(objective: Objective, params: Any, batch: Any, rng: jax.Array, frozen: Sequence[str]) -> Differentiated:
    """The gradients of a batch at once."""

    def loss(params):
        return loss_of(objective, objective.represent(stop_gradients(params, frozen), batch, rng), batch)

    return jax.value_and_grad(loss, has_aux=True)(params)


def train_step(
    state: TrainState, batch: Any, *, objective: Objective, optimizer: optax.GradientTransformation,
    frozen: Sequence[str] = (), differentiate: Callable[..., Differentiated] = whole_batch,
    spike_factor: float = 0.0, first_step: int = 0,
) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
    """One update. A sick step (see `judge`) leaves parameters and moments as they were.

    `spike_factor` is judge's; what is known of gradient norms begins anew at `first_step`, that of an objective.
    """
    rng = jax.random.fold_in(state.rng, state.step)
    (loss, means), gradients = differentiate(objective, state.params, batch, rng, frozen)
    norm = optax.tree.norm(gradients)
    is_good, health = judge(state.health, loss, norm, spike_factor=spike_factor, anew=state.step == first_step)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updated = (optax.apply_updates(state.params, updates), opt_state)
    keep = lambda new, old: jnp.where(is_good, new, old)
    params, opt_state = jax.tree.map(keep, updated, (state.params, state.opt_state))
    metrics = {"loss": loss, **means, "grad_norm": norm, "bad_steps": health.bad_steps, "skipped": health.skipped}
    return TrainState(state.step + 1, params, opt_state, state.rng, health), metrics


def judge(
    health: Health, loss: jax.Array, norm: jax.Array, *, spike_factor: float, anew: Any
) -> tuple[jax.Array, Health]:
    """(whether a step is good, the health after it).

    Sick is a step whose loss or gradient norm is not finite, or whose gradient norm is above `spike_factor` (0: none
    is) times the fading mean of those of the good steps before it, once there are about fifty; `anew` forgets them.
    """
    total, count = norms = jnp.where(anew, 0.0, health.norms)
    is_spike = (spike_factor > 0) & (count > KNOWN) & (norm * count > spike_factor * total)
    is_good = jnp.isfinite(loss) & jnp.isfinite(norm) & ~is_spike
    norms = jnp.where(is_good, FADING * norms + jnp.stack([norm, jnp.ones_like(norm)]), norms)
    bad_steps = jnp.where(is_good, 0, health.bad_steps + 1)
    return is_good, Health(bad_steps, health.skipped + ~is_good, norms)
