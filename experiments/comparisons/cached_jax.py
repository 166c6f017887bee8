"""Stage 2b both ways: training steps on cached features, and on pictures that are encoded again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import context_blip as recipe
from contextjax.models.context_blip import ContextBLIP
from contextjax.objectives.context_blip import SelectionObjective
from contextjax.optim import make_optimizer
from contextjax.training.step import train_step
from contextjax.types import CandidateBatch, FeatureBatch, Tokens, TrainState
from data_pipelines.features import FeatureSamples
from experiments.comparisons import stage1_case

CANDIDATES = 10


class Stage2b:
    """The model of the last stage with random parameters, of which the inter-context encoder trains."""

    def __init__(self, size: str, *, seed: int = 0):
        """`size` is a name of stage1_case.SIZES."""
        config, self._length = stage1_case.SIZES[size]
        self.model = ContextBLIP(dataclasses.replace(config, masking="none", selection="head", context_layers=2))
        self._config = recipe.get_config("2b").optimizer
        self._rule = make_optimizer(self._config, steps=1)
        self._objective = SelectionObjective(self.model, (("selection", 1.0),))
        params = jax.tree.map(jnp.asarray, stage1_case.draw_params(self.model, seed=seed))
        self._state = TrainState.fresh(params, self._rule.init(params), jax.random.key(seed))
        self.costs: dict[str, dict[str, float]] = {}

    def pictures(self, sets: int, *, seed: int = 0) -> CandidateBatch:
        """Random candidates, with a text for each set."""
        rng, vision = np.random.default_rng(seed), self.model.config.blip.vision
        images = rng.integers(0, 256, (sets, CANDIDATES, vision.image_size, vision.image_size, 3), np.uint8)
        ids = rng.integers(1, self.model.config.blip.text.vocabulary - 3, (sets, self._length)).astype(np.int32)
        target, valid, ordered, records = _labels(rng, sets)
        return CandidateBatch(images, Tokens(ids, np.ones(ids.shape, bool)), target, valid, ordered, records)

    def features(self, descriptions: int, *, seed: int = 0) -> FeatureSamples:
        """Random vectors in the place of cached ones: what they hold takes no time."""
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((descriptions, CANDIDATES, self.model.config.blip.text.width), np.float32)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        base = np.zeros(vectors.shape[:2], np.float32)
        text = rng.standard_normal((descriptions, vectors.shape[-1]), np.float32)
        return FeatureSamples(FeatureBatch(vectors, base, text, *_labels(rng, descriptions)))

    def encode(self, batch: CandidateBatch) -> Callable[[], FeatureBatch]:
        """What makes the cache: the features of a batch of pictures."""
        run = jax.jit(lambda params, *inputs: self.model.apply({"params": params}, *inputs, method="represent_sets"))

        def encode() -> FeatureBatch:
            found: Any = run(self._state.params, batch.images, *batch.texts)
            rest = batch.target, batch.valid, batch.ordered, batch.records
            vectors = np.asarray(found.features), np.asarray(found.base), np.asarray(found.summary)
            return FeatureBatch(*vectors, *rest)

        return encode

    def loss(self, batch: Any) -> float:
        """The loss of a batch of either kind, without dropout."""

        def value(params: Any, batch: Any) -> Any:
            total, count = self._objective.terms(self._objective.represent(params, batch, None), batch)["selection"]
            return total / count

        return float(jax.jit(value)(self._state.params, batch))

    def steps(self, name: str, first: Any, batches: Callable[[], Any]) -> Callable[[], float]:
        """A training step on each of the batches that `batches()` yields; all train the same parameters.

        Args:
          name: under which `costs` has FLOPs and bytes of temporaries of a step.
          first: a batch, by which the step is compiled.
          batches: makes a pass over the data.
        """
        options = {"objective": self._objective, "optimizer": self._rule, "frozen": self._config.freeze}
        update = jax.jit(functools.partial(train_step, **options), donate_argnums=0)
        compiled: Any = update.lower(self._state, first).compile()
        self.costs[name] = {
            "flops": float(compiled.cost_analysis()["flops"]),
            "bytes": float(compiled.memory_analysis().temp_size_in_bytes),
        }

        def run() -> float:
            loss = float("nan")
            for batch in batches():
                self._state, metrics = compiled(self._state, batch)
                loss = float(metrics["loss"])
            return loss

        return run


def _labels(rng: np.random.Generator, sets: int) -> tuple[np.ndarray, ...]:
    """target, valid, ordered, records."""
    target = rng.integers(0, CANDIDATES, sets).astype(np.int32)
    ordered = rng.random(sets) < 0.8
    return target, np.ones((sets, CANDIDATES), bool), ordered, np.arange(sets, dtype=np.int32)
