"""contextjax's side of the cost of concepts: train_step of ConText-CIR, every picture encoded once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from contextjax.models.context_cir import ContextCIR, ContextCIRConfig
from contextjax.objectives.context_cir import ContextCIRObjective
from contextjax.pretrained import read_pretrained
from contextjax.training.step import train_step
from contextjax.types import ComposedBatch, Phrases, Tokens, TrainState

TEMPERATURE = 0.07


def load(folder: Path, *, seed: int = 0) -> tuple[ContextCIR, Any]:
    """The model around the CLIP of `folder`, and its parameters: CLIP's as read, the rest random, zeros nowhere."""
    found = read_pretrained(folder)
    model = ContextCIR(ContextCIRConfig(found.model.config))
    size = model.config.clip.vision.image_size
    inputs = jnp.zeros((1, size, size, 3), jnp.uint8), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"])
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.asarray(rng.normal(scale=0.02, size=x.shape) + (x.ndim == 1) * 0.5, jnp.float32)
    params = {name: jax.tree.map(draw, tree) for name, tree in shapes.items() if name != "clip"}
    return model, params | {"clip": jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), found.params)}


def make_batch(model: ContextCIR, batch: int, phrases: int, *, seed: int = 0, phrase_length: int = 12) -> ComposedBatch:
    """`batch` references with a modification each of 20 tokens, with `phrases` phrases of 3 tokens in each."""
    clip = model.config.clip
    rng, size, length = np.random.default_rng(seed), clip.vision.image_size, clip.text.positions
    bos, eos = clip.text.vocabulary - 2, clip.text.vocabulary - 1  # CLIP pads with its EOS
    ids, mask = np.full((batch, 1, length), eos, np.int32), np.zeros((batch, 1, length), bool)
    ids[..., 0], ids[..., 1:19], mask[..., :20] = bos, rng.integers(1000, 40000, (batch, 1, 18)), True
    text = np.repeat(np.arange(batch, dtype=np.int32), phrases)
    start = 1 + np.tile(np.arange(phrases, dtype=np.int32) * 3 % 16, batch)
    span = np.stack([start, start + 3], axis=-1)
    alone, real = np.full((len(text), phrase_length), eos, np.int32), np.zeros((len(text), phrase_length), bool)
    alone[:, 0], alone[:, 1:4] = bos, ids[text[:, None], 0, start[:, None] + np.arange(3)]
    real[:, :5] = True
    return ComposedBatch(
        references=rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        targets=rng.integers(0, 256, (batch, 1, size, size, 3), np.uint8),
        texts=Tokens(ids, mask),
        valid=np.ones((batch, 1), bool),
        reference_ids=np.arange(batch, dtype=np.int32),
        target_ids=np.arange(batch, 2 * batch, dtype=np.int32)[:, None],
        records=np.arange(batch, dtype=np.int32)[:, None],
        phrases=Phrases(
            Tokens(alone[None], real[None]),
            text[None],
            span[None],
            np.ones((1, len(text)), bool),
            np.zeros((batch, 3), np.int32),
        ),
    )


def make_steps(
    model: ContextCIR,
    params: Any,
    batch: ComposedBatch,
    losses: Mapping[str, Mapping[str, float]],
    optimizer: Mapping[str, Any],
) -> tuple[dict[str, Callable[[], float]], dict[str, dict[str, float]]]:
    """name -> a training step that returns the loss, and name -> its FLOPs and bytes; all train the same parameters.

    Args:
      model: see `load`.
      params: see `load`; the steps may overwrite them.
      batch: see `make_batch`.
      losses: name -> the weights of its terms.
      optimizer: the arguments of optax.adamw.
    """
    rule = optax.adamw(**optimizer)
    state = TrainState.fresh(params, rule.init(params), jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, batch)
    steps, costs = {}, {}

    def make(compiled: Any) -> Callable[[], float]:
        def run() -> float:
            nonlocal state
            state, metrics = compiled(state, batch)
            return float(metrics["loss"])

        return run

    for name, weights in losses.items():
        objective = ContextCIRObjective(model, tuple(weights.items()), temperature=TEMPERATURE)
        update = functools.partial(train_step, objective=objective, optimizer=rule)
        compiled: Any = jax.jit(update, donate_argnums=0).lower(state, batch).compile()
        costs[name] = {
            "flops": compiled.cost_analysis()["flops"],
            "bytes": float(compiled.memory_analysis().temp_size_in_bytes),
        }
        steps[name] = make(compiled)
    return steps, costs
