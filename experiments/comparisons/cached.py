"""Stage 2b of ContextBLIP: an epoch over ImageCoDe from cached features, and one that encodes the pictures again.

python -m experiments.comparisons cached [--pairs=3] [--batch=36] [--steps=20] [--sets=2] [--threads=2] [--size=BLIP-B]
    [--output=results/stage2b_cached.json]

A few steps of each are timed in turn and scaled to 16,594 descriptions: encoding them all takes hours on a CPU. Random
weights, pictures and vectors; the losses of both are compared first. No PyTorch here: both sides are this library's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import context_blip as recipe
from contextjax.models.context_blip import ContextBLIP
from contextjax.objectives.context_blip import SelectionObjective
from contextjax.optim import make_optimizer
from contextjax.types import CandidateBatch, FeatureBatch, Tokens, UserError
from data_pipelines.features import FeatureSamples
from experiments.comparisons.blip import LENGTHS, MODELS, draw_params
from experiments.comparisons.harness import KEEP_MEMORY, Case, Program, Table, measure, option, ratio
from experiments.comparisons.training import Training, compile_update, cost_of_compiled, make_update

CACHED, AGAIN, MAKING = "cached features", "pictures encoded again", "making the cache"
CANDIDATES, TARGET, EPOCHS = 10, 100, 20
NOTES = {
    "scaled": f"an epoch is {recipe.DESCRIPTIONS} descriptions; timed are `steps` steps of `batch` on features, one of "
    "`sets` on pictures and a pass over `sets` that makes features; all scaled by the number of descriptions",
    "data": f"random; pictures lie decoded in memory, every description encodes its {CANDIDATES} (published form)",
    "trained": "the inter-context encoder; everything else is frozen (configs/context_blip.py:2b)",
    "flops, bytes": "a step's FLOPs by XLA's count, and the temporaries of its compiled program",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    pairs: int = option(3, "Rounds: a timing of each.", lower_bound=1)
    batch: int = option(36, "Descriptions in a step on cached features.", lower_bound=1)
    steps: int = option(20, "Steps on cached features in a timing.", lower_bound=1)
    sets: int = option(2, "Descriptions in a step on pictures, ten pictures each.", lower_bound=1)
    size: str = option("BLIP-B", "The model; tiny: to see that everything works.", enum_values=[*MODELS])
    threads: int = option(2, "Threads.", lower_bound=1)
    keep_memory: bool = option(True, KEEP_MEMORY)


def compare(options: Options, *, descriptions: int = recipe.DESCRIPTIONS) -> dict[str, Table]:
    """Returns "checked", "programs", "epochs" (seconds, scaled) and "ratios" of epochs.

    Args:
      options: the flags.
      descriptions: in an epoch, and in the table of features.

    Raises:
      UserError: the losses of both differ, or there are fewer descriptions than `steps` batches have.
    """
    batch, steps, sets = options.batch, options.steps, options.sets
    if descriptions < batch * steps:
        raise UserError(f"{steps} steps of {batch} are more than the {descriptions} descriptions; give fewer --steps.")
    stage = Stage2b(options.size)
    pictures, samples = stage.pictures(sets), stage.features(descriptions)
    encode = stage.encode(pictures)
    collate = lambda number: samples.collate([samples[row] for row in range(number * batch, (number + 1) * batch)])
    case = Case(
        programs={
            CACHED: stage.steps(CACHED, collate(0), lambda: (collate(number) for number in range(steps))),
            AGAIN: stage.steps(AGAIN, pictures, lambda: [pictures]),
            MAKING: encode,
        },
        checks=[("loss", lambda: stage.loss(encode()), lambda: stage.loss(pictures))],
        tolerance=1e-4,
        is_relative=True,
        costs={name: lambda name=name: stage.costs[name] for name in (CACHED, AGAIN)},
    )
    result = measure(case, pairs=options.pairs)
    counts = {CACHED: batch * steps, AGAIN: sets, MAKING: sets}
    epochs = {
        name: [descriptions / counts[name] * t for t in row["seconds"]] for name, row in result["programs"].items()
    }
    ratios = {
        f"{AGAIN} / {CACHED}, an epoch": ratio(epochs[AGAIN], epochs[CACHED]) | {"target": TARGET},
        f"the same, {EPOCHS} epochs, the cache made once": ratio(
            [EPOCHS * a for a in epochs[AGAIN]],
            [EPOCHS * a + b for a, b in zip(epochs[CACHED], epochs[MAKING], strict=True)],
        ),
    }
    rows = {name: {"seconds": times, "timed descriptions": counts[name]} for name, times in epochs.items()}
    return {**result, "epochs": rows, "ratios": ratios}


class Stage2b:
    """The model of the last stage with random parameters, of which the inter-context encoder trains."""

    def __init__(self, size: str, *, seed: int = 0):
        """Draws the parameters of a size in `blip.MODELS`."""
        self._length = LENGTHS[size]
        self.model = ContextBLIP(dataclasses.replace(MODELS[size], masking="none", selection="head", context_layers=2))
        self._section = recipe.get_config("2b").optimizer
        self._optimizer = make_optimizer(self._section, steps=1)
        self._objective = SelectionObjective(self.model, (("selection", 1.0),))
        params = jax.tree.map(jnp.asarray, draw_params(self.model, seed=seed))
        self.training = Training(params, self._optimizer, seed=seed)
        self.costs: dict[str, dict[str, float]] = {}

    def pictures(self, sets: int, *, seed: int = 0) -> CandidateBatch:
        """Returns random candidates, with a text for each set."""
        rng, vision = np.random.default_rng(seed), self.model.config.blip.vision
        images = rng.integers(0, 256, (sets, CANDIDATES, vision.image_size, vision.image_size, 3), np.uint8)
        ids = rng.integers(1, self.model.config.blip.text.vocabulary - 3, (sets, self._length)).astype(np.int32)
        return CandidateBatch(images, Tokens(ids, np.ones(ids.shape, bool)), *_labels(rng, sets))

    def features(self, descriptions: int, *, seed: int = 0) -> FeatureSamples:
        """Returns random vectors in the place of cached ones: their values take no time."""
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((descriptions, CANDIDATES, self.model.config.blip.text.width), np.float32)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        base = np.zeros(vectors.shape[:2], np.float32)
        text = rng.standard_normal((descriptions, vectors.shape[-1]), np.float32)
        return FeatureSamples(FeatureBatch(vectors, base, text, *_labels(rng, descriptions)))

    def encode(self, batch: CandidateBatch) -> Callable[[], FeatureBatch]:
        """Returns the program that makes the cache: the features of a batch of pictures."""
        run = jax.jit(lambda params, *inputs: self.model.apply({"params": params}, *inputs, method="represent_sets"))

        def encode() -> FeatureBatch:
            sets: Any = run(self.training.state.params, batch.images, *batch.texts)
            vectors = np.asarray(sets.features), np.asarray(sets.base), np.asarray(sets.summary)
            return FeatureBatch(*vectors, batch.target, batch.valid, batch.ordered, batch.records)

        return encode

    def loss(self, batch: Any) -> float:
        """Returns the loss of a batch of either kind, without dropout."""

        def value(params: Any, batch: Any) -> Any:
            total, count = self._objective.terms(self._objective.represent(params, batch, None), batch)["selection"]
            return total / count

        return float(jax.jit(value)(self.training.state.params, batch))

    def steps(self, name: str, first: Any, batches: Callable[[], Any]) -> Program:
        """Returns a program that trains on each of the batches that `batches()` yields; all train the same parameters.

        Args:
          name: the key of the step's FLOPs and bytes of temporaries in `costs`.
          first: a batch, for which the step is compiled.
          batches: makes a pass over the data.
        """
        update = make_update(self._objective, self._optimizer, frozen=self._section.freeze)
        compiled = compile_update(update, self.training.state, first)
        self.costs[name] = cost_of_compiled(compiled)
        return lambda: [self.training.update(compiled, batch)["loss"] for batch in batches()]


def _labels(rng: np.random.Generator, sets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns random target, valid, ordered and records of a batch of sets."""
    target = rng.integers(0, CANDIDATES, sets).astype(np.int32)
    ordered = rng.random(sets) < 0.8
    return target, np.ones((sets, CANDIDATES), bool), ordered, np.arange(sets, dtype=np.int32)
