"""The training step: a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from contextjax.optim import stop_gradients
from contextjax.types import Terms, TrainState

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
) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
    """One update. A non-finite loss or gradient leaves parameters and moments as they were."""
    rng = jax.random.fold_in(state.rng, state.step)
    (loss, means), gradients = differentiate(objective, state.params, batch, rng, frozen)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    updated = (optax.apply_updates(state.params, updates), opt_state)
    keep = lambda new, old: jnp.where(finite, new, old)
    params, opt_state = jax.tree.map(keep, updated, (state.params, state.opt_state))
    bad_steps = jnp.where(finite, 0, state.bad_steps + 1)
    metrics = {"loss": loss, **means, "grad_norm": norm, "bad_steps": bad_steps}
    return TrainState(state.step + 1, params, opt_state, state.rng, bad_steps), metrics
