"""The training step: a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from contextjax.optim import stop_gradients
from contextjax.types import Terms, TrainState


class Objective(Protocol):
    """What the step needs of an objective: named (sum, count) terms, some of them weighted."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """(name, weight) of the terms that make the loss."""
        ...

    def represent(self, params: Any, batch: Any, rng: Any) -> dict[str, Any]:
        """Everything the terms compare; `rng` is a key of this step's own."""
        ...

    def terms(self, representations: dict[str, Any], batch: Any) -> Terms:
        """name -> (sum, count)."""
        ...


def train_step(
    state: TrainState, batch: Any, *, objective: Objective, optimizer: optax.GradientTransformation,
    frozen: Sequence[str] = (),
) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
    """One update. A non-finite loss or gradient leaves parameters and moments as they were."""
    rng = jax.random.fold_in(state.rng, state.step)

    def loss_of(params):
        terms = objective.terms(objective.represent(stop_gradients(params, frozen), batch, rng), batch)
        means = {name: total / jnp.maximum(count, 1.0) for name, (total, count) in terms.items()}
        return sum(weight * means[name] for name, weight in objective.weights), means

    (loss, means), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updated = (optax.apply_updates(state.params, updates), opt_state)
    keep = lambda new, old: jnp.where(finite, new, old)
    params, opt_state = jax.tree.map(keep, updated, (state.params, state.opt_state))
    bad_steps = jnp.where(finite, 0, state.bad_steps + 1)
    metrics = {"loss": loss, **means, "grad_norm": norm, "bad_steps": bad_steps}
    return TrainState(state.step + 1, params, opt_state, state.rng, bad_steps), metrics
