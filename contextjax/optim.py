"""Schedules and the optax chain, from the config's `optimizer` section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from contextjax.muon import muon
from contextjax.types import UserError


def cosine_schedule(peak: float, *, warmup: int, steps: int) -> Callable:
    """Makes a schedule: linear warm-up to `peak`, then one cosine to zero at `steps`."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), 0.0)


def restarts_schedule(peak: float, *, warmup: int, period: int, factor: int) -> Callable:
    """Makes ConText-CIR's schedule: linear warm-up, then cosines with warm restarts, each `factor` times longer."""

    def schedule(step):
        after = jnp.maximum(step - warmup, 0) / period
        # The n-th restart of periods 1, f, f^2, ... begins at (f^n - 1) / (f - 1).
        if factor == 1:
            phase = after % 1.0
        else:
            index = jnp.floor(jnp.log(after * (factor - 1) + 1) / jnp.log(factor) + 1e-6)
            begin = (factor**index - 1) / (factor - 1)
            phase = (after - begin) / factor**index
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(phase, 0, 1)))
        return peak * jnp.where(step < warmup, step / max(warmup, 1), cosine)

    return schedule


def exponential_schedule(peak: float, *, warmup: int, period: int, factor: float) -> Callable:
    """Makes ContextBLIP's schedule: linear warm-up, then times `factor` after every `period` steps, an epoch."""

    def schedule(step):
        epochs = jnp.floor(jnp.maximum(step - warmup, 0) / period)
        return peak * jnp.where(step < warmup, step / max(warmup, 1), factor**epochs)

    return schedule


def make_schedule(config: Any, *, steps: int) -> Callable:
    """Returns the learning rate as a function of the step, from the config's `optimizer` section.

    Raises:
      UserError: there is no such schedule.
    """
    if config.schedule == "cosine":
        return cosine_schedule(config.learning_rate, warmup=config.warmup_steps, steps=steps)
    if config.schedule == "exponential":
        return exponential_schedule(
            config.learning_rate, warmup=config.warmup_steps, period=config.decay_period, factor=config.decay_factor
        )
    if config.schedule == "restarts":
        return restarts_schedule(
            config.learning_rate,
            warmup=config.warmup_steps,
            period=config.restart_period,
            factor=config.restart_factor,
        )
    raise UserError(f"optimizer.schedule is '{config.schedule}'; known are 'cosine', 'restarts' and 'exponential'.")


def make_optimizer(config: Any, *, steps: int) -> optax.GradientTransformation:
    """Makes the optax chain: clip by global norm, then AdamW, Adam, or Muon for the kernels and AdamW for the rest.

    Adam's decay is L2's, part of the gradient, as in PyTorch's class of that name. `freeze` names parameters (by the
    beginnings of their paths, "clip/vision") that have no optimizer state and never change; `multipliers` scales the
    updates of others. `decay_vectors` False spares biases, norms and scalars (and with Muon, all but kernels) from
    decay. Muon's updates are scaled to the root mean square that AdamW's have (0.2, Liu et al. 2025), so both take
    the same learning rate.
    """
    schedule = make_schedule(config, steps=steps)
    adam = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon}
    mask = None if config.decay_vectors else lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    if config.name == "adamw":
        rule = optax.adamw(schedule, **adam, weight_decay=config.weight_decay, mask=mask)
    elif config.name == "adam":
        rule = optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask),
            optax.scale_by_adam(**adam),
            optax.scale_by_learning_rate(schedule),
        )
    elif config.name == "muon":
        rule = muon(
            schedule,
            axes=_matrices,
            adam=optax.adamw(
                schedule, **adam, nesterov=True, weight_decay=config.weight_decay if config.decay_vectors else 0.0
            ),
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=mask,
        )
    else:
        raise UserError(f"optimizer.name is '{config.name}'; known are 'adamw', 'adam' and 'muon'.")
    for prefix, factor in config.multipliers.items():
        rule = optax.chain(rule, optax.masked(optax.scale(factor), _under(prefix)))
    rule = optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
    if not config.freeze:
        return rule
    label = lambda params: jax.tree.map(
        lambda frozen: "frozen" if frozen else "trained", _under(*config.freeze)(params)
    )
    return optax.multi_transform({"trained": rule, "frozen": optax.set_to_zero()}, label)


def stop_gradients(params: Any, frozen: Sequence[str]) -> Any:
    """Returns the parameters, those under the paths `frozen` as constants: no gradient is computed for them.

    Raises:
      UserError: a path at which there are no parameters.
    """
    if not frozen:
        return params
    stop = lambda leaf, is_frozen: jax.lax.stop_gradient(leaf) if is_frozen else leaf
    return jax.tree.map(stop, params, _under(*frozen)(params))


def _under(*prefixes: str) -> Callable[[Any], Any]:
    """Returns a function that marks the leaves of a tree whose paths begin with one of `prefixes`, whole names."""

    def mark(params: Any) -> Any:
        names = lambda path: "/".join(str(key.key) for key in path if hasattr(key, "key")) + "/"
        paths = [names(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
        for prefix in prefixes:
            if not any(path.startswith(f"{prefix}/") for path in paths):
                heads = ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))
                raise UserError(
                    f"optimizer.freeze or .multipliers names '{prefix}', where the model has nothing; it has {heads}."
                )
        marked = lambda path, _: names(path).startswith(tuple(f"{prefix}/" for prefix in prefixes))
        return jax.tree_util.tree_map_with_path(marked, params)

    return mark


def _matrices(params: Any) -> Any:
    """Returns the axes of kernels that Muon orthogonalises: input and output; q, k and v of a fused kernel apart."""

    def axes(path, leaf):
        kernel = any("kernel" in str(key) for key in path) and leaf.ndim > 1
        return optax.contrib.MuonDimensionNumbers(0, leaf.ndim - 1) if kernel else None

    return jax.tree_util.tree_map_with_path(axes, params)
