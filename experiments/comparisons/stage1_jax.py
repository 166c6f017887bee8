"""contextjax's side of stage 1: train_step of the caption objective on given draws."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from safetensors.numpy import load_file

from contextjax.models.context_blip import ContextBLIP
from contextjax.objectives.context_blip import CaptionObjective
from contextjax.optim import make_optimizer
from contextjax.pretrained import abstract_params, read_pretrained
from contextjax.pretrained.names import bind, flatten, unflatten
from contextjax.training.step import train_step
from contextjax.types import TrainState
from experiments.comparisons import stage1_case

WEIGHTS = (("matching", 1.0), ("masking", 1.0))
FROZEN = ("blip",)


@dataclasses.dataclass(frozen=True)
class GivenDraws:
    """CaptionObjective whose draws come with the batch, so that both libraries have the same.

    The mean cosine, which negatives would be drawn from, is logged: else XLA would leave out what it is made of.
    """

    objective: CaptionObjective

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Those of the objective."""
        return self.objective.weights

    def represent(self, params: Any, batch: Any, rng: Any) -> dict[str, Any]:
        """What the objective represents."""
        captions, draws = batch
        return self.objective.represent(params, captions, rng, draws)

    def terms(self, representations: dict[str, Any], batch: Any) -> dict[str, Any]:
        """The objective's terms, and the mean cosine."""
        cosines = representations["text"] @ representations["image"].T
        terms = self.objective.terms(representations, batch[0])
        return {**terms, "similarity": (cosines.sum(), jnp.float32(cosines.size))}


class Program:
    """A compiled training step and its state."""

    def __init__(self, folder: str, size: str, batch: int, threads: int):
        """Reads the weights and compiles; `threads` are as many as the process may use."""
        self._model = ContextBLIP(stage1_case.config_of(size))
        self._objective = GivenDraws(CaptionObjective(self._model, WEIGHTS))
        self._batch = jax.tree.map(jnp.asarray, stage1_case.make_batch(size, batch))
        self._state = self._start(read_params(Path(folder), self._model), frozen=True)
        self._compiled = self._compile(self._state, frozen=True)

    def step(self) -> dict[str, float]:
        """One update; what it logs."""
        self._state, metrics = self._compiled(self._state, self._batch)
        return {name: float(x) for name, x in metrics.items()}

    def checked_step(self) -> dict[str, float]:
        """The same: our step always knows its gradient norm."""
        return self.step()

    def cost(self) -> dict[str, float]:
        """FLOPs and bytes of temporaries of the step."""
        return _cost(self._compiled)

    def freezing(self) -> dict[str, dict[str, float]]:
        """The same of the step with BLIP frozen and with everything trained, and the bytes of the training state."""
        costs = {}
        for name, frozen in (("BLIP frozen", True), ("everything trained", False)):
            abstract = jax.eval_shape(lambda params, f=frozen: self._start(params, frozen=f), self._state.params)
            compiled = self._compiled if frozen else self._compile(abstract, frozen=False)
            sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves((abstract.params, abstract.opt_state))]
            costs[name] = {**_cost(compiled), "state_bytes": float(sum(sizes))}
        return costs

    def _start(self, params: Any, *, frozen: bool) -> TrainState:
        rule = make_optimizer(stage1_case.optimizer(frozen=frozen), steps=1)
        return TrainState.fresh(params, rule.init(params), jax.random.key(0))

    def _compile(self, state: Any, *, frozen: bool) -> Any:
        rule = make_optimizer(stage1_case.optimizer(frozen=frozen), steps=1)
        options = {"objective": self._objective, "optimizer": rule, "frozen": FROZEN if frozen else ()}
        return jax.jit(functools.partial(train_step, **options), donate_argnums=0).lower(state, self._batch).compile()


def read_params(folder: Path, model: ContextBLIP) -> dict[str, Any]:
    """The parameters that stage1_case.write_weights wrote."""
    blip = jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), read_pretrained(folder).params)
    own = {name: tree for name, tree in nn.unbox(abstract_params(model)).items() if name != "blip"}
    shapes = {path: x.shape for path, x in flatten(own).items()}
    tensors = load_file(folder / stage1_case.REST)
    rest = {}
    for path, (names, layout, _) in bind(stage1_case.table(model.config), shapes).items():
        rest[path] = jnp.asarray(layout.read(*(tensors[name] for name in names[0])))
    return {"blip": blip, **unflatten(rest)}


def _cost(compiled: Any) -> dict[str, float]:
    memory = compiled.memory_analysis()
    return {"flops": float(compiled.cost_analysis()["flops"]), "bytes": float(memory.temp_size_in_bytes)}
