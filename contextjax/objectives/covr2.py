"""The objective of CoVR-2: HN-NCE of queries and targets, both the means of several vectors (arXiv 2308.14746)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contextjax.losses.contrastive import recall_at_one
from contextjax.losses.hard_negative import hard_negative_loss
from contextjax.models.covr2 import CoVR2
from contextjax.objectives.runner import runner
from contextjax.types import ComposedBatch, Terms


@dataclasses.dataclass(frozen=True)
class CoVR2Objective:
    """The terms of a batch of composed queries and their weights; only terms with a weight are computed.

    Attributes:
      model: the module that `params` belong to. The optimizer freezes its BLIP-2.
      weights: (name, weight) pairs out of "hard_negative" (HN-NCE of queries and target pictures) and "captions" (the
        same of queries and the targets' captions; half and half in the published training on web pairs).
      temperature: a fixed one.
      alpha: weight of the positive in HN-NCE's denominator.
      beta: exponent of the negatives' weights; 0 weighs all alike.
      mask_false_negatives: leave out candidates that are the same picture (by id) as the row's positive.
      loss: `hard_negative_loss`, or another form of it with the same signature.
    """

    model: CoVR2
    weights: tuple[tuple[str, float], ...]
    temperature: float = 0.07
    alpha: float = 1.0
    beta: float = 0.5
    mask_false_negatives: bool = False
    loss: Callable[..., Any] = hard_negative_loss
    is_rowwise = True

    def represent(self, params: Any, batch: ComposedBatch, rng: Any = None) -> dict[str, Any]:
        """Returns the embeddings that the terms compare; each picture is encoded once. `rng` is not used."""
        run = runner(self.model, params)
        # Pictures are grouped by reference, [R, 1 + M]: each of several devices keeps its own.
        count, modifications = batch.target_ids.shape
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        pictures = jnp.concatenate([batch.references[:, None], batch.targets], axis=1)
        images = run("encode_image", flat(pictures))
        images = jax.tree.map(lambda x: x.reshape(count, 1 + modifications, *x.shape[1:]), images)
        query = run("compose", jax.tree.map(lambda x: x[:, :1], images), *batch.texts).query  # [R, M, D]
        targets = jax.tree.map(lambda x: flat(x[:, 1:]), images)
        out = {"query": flat(query), "target": run("embed_image", targets)}
        if "captions" in dict(self.weights):
            captions = jax.tree.map(lambda x: flat(x[:, 1:]), batch.captions)
            out["caption"] = run("embed_text", run("encode_text", *captions))
        return out

    def terms(self, representations: dict[str, Any], batch: ComposedBatch) -> Terms:
        """Returns (sum, count) of every weighted term, and of further terms for the log."""
        r, names = representations, dict(self.weights)
        valid = batch.valid.reshape(-1)
        options: dict[str, Any] = {
            "temperature": jnp.float32(self.temperature), "valid": valid, "target_ids": batch.target_ids.reshape(-1),
            "mask_false_negatives": self.mask_false_negatives, "alpha": self.alpha, "beta": self.beta,
        }  # fmt: skip
        terms = {"batch_recall": recall_at_one(r["query"], r["target"], valid)}
        for name, positive in (("hard_negative", "target"), ("captions", "caption")):
            if name in names:
                terms[name] = self.loss(r["query"], r[positive], **options)
        return terms
