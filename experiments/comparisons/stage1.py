"""A stage-1 step of ContextBLIP (BLIP-B at 224, 30 tokens, BLIP frozen, AdamW on the rest), here and in PyTorch.

python -m experiments.comparisons stage1 [--batch=8] [--pairs=5] [--threads=2] [--size=BLIP-B] [--output=FILE.json]

PyTorch's step is the published recipe, written plainly on the BLIP modules of `transformers`; it projects keys and
values of a picture again for each text that reads it, and ours once for all of them. Both sides get the same random
weights, inputs and draws (one negative picture and text each, masked position, noise), float32, no dropout. Each runs
in a process of its own. Needs the extra `[torch]`.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from safetensors.numpy import load_file, save_file

from contextjax.models.context_blip import ContextBLIP
from contextjax.objectives.context_blip import CaptionObjective
from contextjax.optim import make_optimizer
from contextjax.pretrained import abstract_params, read_pretrained
from contextjax.pretrained.names import bind, flatten, unflatten, write
from contextjax.types import TrainState
from experiments.comparisons.blip import (
    MODELS,
    TRAINED,
    draw_params,
    make_stage1_batch,
    stage1_config,
    stage1_optimizer,
    torch_names,
)
from experiments.comparisons.harness import Case, Table, measure, option
from experiments.comparisons.process import Process
from experiments.comparisons.training import Training, compile_update, cost_of_compiled, make_update

OURS, THEIRS = "contextjax", "PyTorch"
LOSSES = (("matching", 1.0), ("masking", 1.0))
FROZEN = ("blip",)
CHECKED_STEPS = 2  # the losses after an update compare the optimizers as well
TARGET = 1.7
PACKAGES = ("flax", "torch", "transformers")
NOTES = {
    "pytorch": "transformers' BlipForImageTextRetrieval (its own attention) in eval mode, requires_grad False; no_grad "
    "over the full and the visible pictures and the texts alone; a fused pass over the B positives and one over the 2B "
    "negatives, each with its pictures' tokens gathered; decoder of BlipTextLayers; torch.optim.AdamW(fused=True)",
    "here": "train_step; an image's keys and values are projected once for all texts that read it",
    "flops": "here: XLA's count of the compiled program; PyTorch: matrix products by FlopCounterMode",
    "memory": "here: temporaries of the compiled program; PyTorch: most tensors alive beyond those before the step; "
    "resident: the process's peak during a step, weights, libraries and kept free memory included",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of the case."""

    batch: int = option(8, "Captions, a picture each.", lower_bound=2)
    pairs: int = option(5, "Rounds: a timing of each step.", lower_bound=1)
    size: str = option("BLIP-B", "The model; tiny: to see that everything works.", enum_values=[*MODELS])
    threads: int = option(2, "Threads of both.", lower_bound=1)


def compare(options: Options) -> dict[str, Table]:
    """Returns "checked", "programs" (seconds, FLOPs, bytes), "ratios" and "freezing", which has the costs of our step.

    Raises:
      UserError: losses or gradient norms differ, or a process ends.
    """
    from experiments.comparisons.stage1_torch import TorchStep

    with tempfile.TemporaryDirectory() as scratch:
        write_weights(Path(scratch), options.size)
        arguments = scratch, options.size, options.batch, options.threads
        with Process(OURS, Step, *arguments) as ours, Process(THEIRS, TorchStep, *arguments) as theirs:
            check = functools.partial(ours.ask, "checked_step"), functools.partial(theirs.ask, "checked_step")
            cost = lambda side: {"resident": side.ask("resident"), **side.ask("cost")}
            case = Case(
                programs={OURS: functools.partial(ours.ask, "step"), THEIRS: functools.partial(theirs.ask, "step")},
                checks=[(f"step {number + 1}", *check) for number in range(CHECKED_STEPS)],
                tolerance=1e-4,
                is_relative=True,
                ratios=[(THEIRS, OURS)],
                costs={OURS: lambda: cost(ours), THEIRS: lambda: cost(theirs)},
            )
            result = measure(case, pairs=options.pairs)
            result["ratios"][f"{THEIRS} / {OURS}"]["target"] = TARGET
            return {**result, "freezing": ours.ask("freezing")}


def write_weights(folder: Path, size: str) -> None:
    """Writes random weights: BLIP's as `transformers` initialises and writes them, and those that are trained."""
    from experiments.comparisons import stage1_torch

    config = stage1_config(size)
    stage1_torch.write_blip(folder, config.blip)
    rest = draw_params(ContextBLIP(config), without="blip")
    save_file(write(torch_names(config), flatten(rest)), folder / TRAINED)


@dataclasses.dataclass(frozen=True)
class GivenDraws:
    """CaptionObjective whose draws come with the batch, so that both libraries have the same.

    The mean cosine, which negatives would be drawn from, is logged: else XLA would remove what it is made of.
    """

    objective: CaptionObjective

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The objective's weights."""
        return self.objective.weights

    def represent(self, params: Any, batch: Any, rng: Any) -> dict[str, Any]:
        """Returns the objective's representations."""
        captions, draws = batch
        return self.objective.represent(params, captions, rng, draws)

    def terms(self, representations: dict[str, Any], batch: Any) -> dict[str, Any]:
        """Returns the objective's terms, and the mean cosine."""
        cosines = representations["text"] @ representations["image"].T
        terms = self.objective.terms(representations, batch[0])
        return {**terms, "similarity": (cosines.sum(), jnp.float32(cosines.size))}


class Step:
    """Our compiled training step and its state."""

    def __init__(self, folder: str, size: str, batch: int, threads: int):
        """Reads the weights and compiles; JAX takes as many threads as this process has cores (`threads`)."""
        self.model = ContextBLIP(stage1_config(size))
        self.objective = GivenDraws(CaptionObjective(self.model, LOSSES))
        self.batch = jax.tree.map(jnp.asarray, make_stage1_batch(size, batch))
        optimizer = make_optimizer(stage1_optimizer(), steps=1)
        self.training = Training(read_params(Path(folder), self.model), optimizer)
        update = make_update(self.objective, optimizer, frozen=FROZEN)
        self._compiled = compile_update(update, self.training.state, self.batch)

    def step(self) -> dict[str, float]:
        """Runs one update and returns its metrics, with the gradient's norm."""
        return self.training.update(self._compiled, self.batch)

    checked_step = step

    def cost(self) -> dict[str, float]:
        """Returns the FLOPs and bytes of temporaries of the step."""
        return cost_of_compiled(self._compiled)

    def freezing(self) -> Table:
        """Returns what the step and its state cost with BLIP frozen and with everything trained."""
        rule = make_optimizer(stage1_optimizer(is_frozen=False), steps=1)
        fresh = lambda params: TrainState.fresh(params, rule.init(params), jax.random.key(0))
        trained: Any = jax.eval_shape(fresh, self.training.state.params)
        compiled = compile_update(make_update(self.objective, rule), trained, self.batch)
        rows = ("BLIP frozen", self.training.state, self._compiled), ("everything trained", trained, compiled)
        return {
            name: {
                **cost_of_compiled(program),
                "state_bytes": float(
                    sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.params, state.opt_state)))
                ),
            }
            for name, state, program in rows
        }


def read_params(folder: Path, model: ContextBLIP) -> dict[str, Any]:
    """Returns the parameters that `write_weights` wrote."""
    blip = jax.tree.map(lambda leaf: jnp.asarray(leaf.read()), read_pretrained(folder).params)
    own = {name: tree for name, tree in nn.unbox(abstract_params(model)).items() if name != "blip"}
    shapes = {path: x.shape for path, x in flatten(own).items()}
    tensors = load_file(folder / TRAINED)
    rest = {}
    for path, (names, layout, _) in bind(torch_names(model.config), shapes).items():
        rest[path] = jnp.asarray(layout.read(*(tensors[name] for name in names[0])))
    return {"blip": blip, **unflatten(rest)}
