"""Schedules and the optax chain, from the config's `optimizer` section."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from contextjax.muon import muon
from contextjax.types import UserError

SCHEDULES, OPTIMIZERS = ("cosine", "restarts", "exponential"), ("adamw", "adam", "muon")
# In the path of a parameter whose first axis is that of a tower's layers, see models.layers.run_blocks.
STACK = "layers"
KERNELS = ("kernel", "qkv_kernel")  # the names of matrices, which Muon orthogonalises
# The names of parameters that `decay_vectors` False spares: biases, norms, scalars and single embeddings.
VECTORS = ("bias", "qkv_bias", "truth_bias", "scale", "logit_scale", "logit_bias", "class_embedding",
           "mask_embedding")  # fmt: skip


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
    updates of others. `decay_vectors` False spares VECTORS (and with Muon, all but kernels) from decay. Muon's updates
    are scaled to the root mean square that AdamW's have (0.2, Liu et al. 2025), so both take the same learning rate.

    Each parameter is treated by its name, not by its shape, so that stacked layers (`scan` of a tower) are updated like
    the same layers one by one. A path names a layer alike in both: "clip/vision/layer_0"; "layers" in place of
    "layer_0" stands for all of them.
    """
    schedule = make_schedule(config, steps=steps)
    adam = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon}
    mask = None if config.decay_vectors else _decayed
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
    rule = optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
    if config.freeze:
        label = lambda params: jax.tree.map(
            lambda mark: "frozen" if np.all(mark) else "trained", under(*config.freeze)(params)
        )
        rule = optax.multi_transform({"trained": rule, "frozen": optax.set_to_zero()}, label)
    return _by_path(rule, tuple(config.freeze), dict(config.multipliers))


def _by_path(rule: optax.GradientTransformation, freeze: tuple[str, ...],
             multipliers: Mapping[str, float]) -> optax.GradientTransformation:  # fmt: skip
    """Returns a rule whose updates are scaled by the multipliers, and are zero for single layers that are frozen.

    `rule` sees a stacked parameter as a whole, so the frozen layers' gradients are zeroed before it (they would count
    in the global norm), and their updates, which may hold decay, after it.
    """
    if not freeze and not multipliers:
        return rule

    def init(params: Any) -> Any:
        for prefix in multipliers:
            under(prefix)(params)  # an unknown one is reported before anything is computed
        return rule.init(params)

    def cut(tree: Any) -> Any:
        zero = lambda x, mark: jnp.where(along(mark, x), 0, x) if np.ndim(mark) else x
        return jax.tree.map(zero, tree, under(*freeze)(tree)) if freeze else tree

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = rule.update(cut(updates), state, params)
        for prefix, factor in multipliers.items():
            scale = lambda x, mark, factor=factor: x * along(np.where(mark, factor, 1.0), x) if np.any(mark) else x
            updates = jax.tree.map(scale, updates, under(prefix)(updates))
        return cut(updates), state

    return optax.GradientTransformation(init, update)


def stop_gradients(params: Any, frozen: Sequence[str]) -> Any:
    """Returns the parameters with those under the paths `frozen` as constants, for which no gradient is computed.

    Raises:
      UserError: a path at which there are no parameters.
    """
    if not frozen:
        return params

    def stop(leaf: Any, mark: Any) -> Any:
        if np.ndim(mark):  # some layers of a stack
            return jnp.where(along(mark, leaf), jax.lax.stop_gradient(leaf), leaf)
        return jax.lax.stop_gradient(leaf) if mark else leaf

    return jax.tree.map(stop, params, under(*frozen)(params))


def under(*prefixes: str, key: str = "optimizer.freeze or .multipliers") -> Callable[[Any], Any]:
    """Returns a function that marks the leaves of a tree whose paths begin with one of `prefixes`, whole names.

    A mark is a bool, or bool [layers] for a stacked parameter of which only some layers are meant. `key` names the
    setting in the message about a path at which there is nothing.
    """
    # The paths are those of layers one by one; "layers" in a prefix is any of them.
    pattern_of = lambda prefix: re.sub(r"(^|/)layers(?=/)", r"\1layer_\\d+", f"{re.escape(prefix)}/")
    patterns = {prefix: re.compile(pattern_of(prefix)) for prefix in prefixes}

    def mark(params: Any) -> Any:
        leaves = [(_layers(path, leaf), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]]
        for prefix, pattern in patterns.items():
            if not any(pattern.match(path) for paths, _ in leaves for path in paths):
                heads = ", ".join(dict.fromkeys(paths[0].split("/")[0] for paths, _ in leaves))
                raise UserError(f"{key} names '{prefix}', where the model has nothing; it has {heads}.")
        marks = [
            np.asarray([any(pattern.match(path) for pattern in patterns.values()) for path in paths])
            for paths, _ in leaves
        ]
        marks = [bool(m[0]) if (m == m[0]).all() else m for m in marks]
        return jax.tree.unflatten(jax.tree.structure(params), marks)

    return mark


def _names(path: Any) -> list[str]:
    """Returns the names in the path of a leaf, without those of an optimizer's or a container's own attributes."""
    return [str(key.key) for key in path if hasattr(key, "key")]


def _layers(path: Any, leaf: Any) -> list[str]:
    """Returns the paths "a/b/" of a leaf: one for each layer of a stacked parameter."""
    names = _names(path)
    count = leaf.shape[0] if STACK in names else 1
    return ["/".join(f"layer_{n}" if name == STACK else name for name in names) + "/" for n in range(count)]


def along(values: Any, leaf: Any) -> Any:
    """Returns a number, or one for each layer of a stacked parameter, in a shape that broadcasts against the leaf."""
    values = np.asarray(values)
    values = values if values.dtype == bool else values.astype(leaf.dtype)
    return values.reshape(values.shape + (1,) * (leaf.ndim - 1)) if values.ndim else values


def _decayed(params: Any) -> Any:
    """Marks the parameters that decay where vectors do not."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] not in VECTORS, params)


def _matrices(params: Any) -> Any:
    """Returns the axes of kernels that Muon orthogonalises: input and output.

    The layers of a stack are orthogonalised apart, and query, key and value of a fused kernel. A convolution's window
    belongs to its input.
    """

    def axes(path: Any, leaf: Any) -> Any:
        names = _names(path)
        if names[-1] not in KERNELS:
            return None
        first, last = int(STACK in names), leaf.ndim - 1
        inputs = (first,) if names[-1] == "qkv_kernel" else tuple(range(first, last))
        return optax.contrib.MuonDimensionNumbers(inputs, (last,))

    return jax.tree_util.tree_map_with_path(axes, params)
