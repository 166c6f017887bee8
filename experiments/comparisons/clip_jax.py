"""contextjax's side of the comparison: the same checkpoint through pretrained.read_pretrained and train_step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contextjax.losses.contrastive import contrastive_loss
from contextjax.models.clip import CLIP
from contextjax.pretrained import read_pretrained
from contextjax.training.step import train_step
from contextjax.types import Tokens, TrainState


@dataclasses.dataclass(frozen=True)
class ClipObjective:
    """CLIP's own loss: pictures against their texts, both ways, with the learned temperature."""

    model: CLIP
    weights: tuple[tuple[str, float], ...] = (("contrastive", 1.0),)
    is_rowwise = True

    def represent(self, params: Any, batch: tuple[Any, Tokens], rng: Any) -> dict[str, Any]:
        """Both embeddings and the temperature; nothing here is random."""
        images, texts = batch
        image, text = self.model.bind({"params": params})(images, *texts)
        return {"image": image, "text": text, "temperature": jnp.exp(-params["logit_scale"])}

    def terms(self, representations: dict[str, Any], batch: Any) -> dict[str, tuple[Any, Any]]:
        """The one term."""
        r = representations
        rows = jnp.arange(len(r["image"]))
        options = {"temperature": r["temperature"], "valid": rows >= 0, "target_ids": rows}
        return {"contrastive": contrastive_loss(r["image"], r["text"], **options)}


def load(folder: Path, dtype: str) -> tuple[CLIP, Any]:
    """The module, computing in `dtype`, and its float32 parameters."""
    found = read_pretrained(folder, dtype=jnp.dtype(dtype))
    return found.model, jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), found.params)


def forward(folder: Path, images: np.ndarray, dtype: str) -> Callable[[], np.ndarray]:
    """The image tower and its projection: uint8 [B, H, W, 3] -> [B, D]."""
    model, params = load(folder, dtype)
    params = jax.tree.map(lambda x: x.astype(dtype), params)

    @jax.jit
    def embed(params: Any, images: jax.Array) -> jax.Array:
        clip = model.bind({"params": params})
        return clip.project_image(clip.encode_image(images).pooled)

    pixels = jnp.asarray(images)
    return lambda: np.asarray(embed(params, pixels), np.float32)


def step(folder: Path, images: np.ndarray, ids: np.ndarray, dtype: str, optimizer: dict[str, Any]) -> Callable:
    """A training step of both towers; returns the loss."""
    model, params = load(folder, dtype)
    objective, rule = ClipObjective(model), optax.adamw(**optimizer)
    update = jax.jit(
        lambda state, batch: train_step(state, batch, objective=objective, optimizer=rule), donate_argnums=0
    )
    state = TrainState.fresh(params, rule.init(params), jax.random.key(0))
    batch = (jnp.asarray(images), Tokens(jnp.asarray(ids), jnp.ones(ids.shape, bool)))

    def run() -> float:
        nonlocal state
        state, metrics = update(state, batch)
        return float(metrics["loss"])

    return run
